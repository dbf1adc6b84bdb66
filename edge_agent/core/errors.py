"""The exceptions of edge-agent, one tree; imports nothing.

    EdgeAgentError
    ├── BadQuestion         the question cannot be asked as it stands          exit 65
    ├── BadData             a question file or figures cannot be measured      exit 65
    ├── ModelError          the model file is missing or was refused           exit 66
    │   ├── ModelMissing        no such file or name
    │   ├── ModelRefused        not a GGUF, damaged, or not a model we can run
    │   └── ModelBusy           too many wait for it, or there was no answer in time
    ├── ConvertError        a checkpoint or an adapter cannot be converted      exit 65
    ├── CloudUnavailable    the cloud alone could answer, and did not           exit 69
    ├── DownloadFailed      a file could not be fetched, or is not what it said exit 69
    ├── StorageError        the database cannot be used                         exit 74
    └── BadSetting          a setting from the environment or config file       exit 78

Every message is one sentence that names the wrong value and what to do about it. Foreign exceptions are
translated once, where they enter (`raise ... from`); code further in never sees them.
"""


class EdgeAgentError(Exception):
    """Everything edge-agent raises on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class BadQuestion(EdgeAgentError):
    """The question is empty, has the wrong number of options, or does not fit the context."""

    exit_code = 65


class BadData(EdgeAgentError):
    """A file of questions, or arrays of results, are not what a measurement needs."""

    exit_code = 65


class ModelError(EdgeAgentError):
    """The model cannot be used."""

    exit_code = 66


class ModelMissing(ModelError):
    """There is no model under this name or path."""


class ModelRefused(ModelError):
    """The file is there, but it is damaged, no GGUF, or a model that edge-agent does not know how to ask."""


class ModelBusy(ModelError):
    """Too many questions wait for the model, or it gave no answer in the time that the caller had."""


class ConvertError(EdgeAgentError):
    """The checkpoint or the adapter is not what it should be."""

    exit_code = 65


class CloudUnavailable(EdgeAgentError):
    """The policy allows only the cloud, or the queue is to be drained, and there is no answer from a cloud."""

    exit_code = 69


class DownloadFailed(EdgeAgentError):
    """The network gave out, or what came is not the file that was expected."""

    exit_code = 69


class StorageError(EdgeAgentError):
    """The database cannot be opened, is not ours, or refused a write that was promised."""

    exit_code = 74


class BadSetting(EdgeAgentError):
    """A setting has a value that cannot be used."""

    exit_code = 78
