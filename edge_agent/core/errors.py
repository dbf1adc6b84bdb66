"""The exceptions of edge-agent, one tree; imports nothing.

    EdgeAgentError
    ├── BadQuestion         the question cannot be asked as written            exit 65
    ├── BadData             a question file or results cannot be measured      exit 65
    ├── ModelError          the model file is missing or was refused           exit 66
    │   ├── ModelMissing        no such file or name
    │   ├── ModelRefused        not a GGUF, damaged, or not a model we can run
    │   └── ModelBusy           too many questions wait for it, or it took too long
    ├── ConvertError        a checkpoint or an adapter cannot be converted      exit 65
    ├── CloudUnavailable    only the cloud may answer, and it did not           exit 69
    ├── DownloadFailed      a file could not be fetched, or is the wrong file   exit 69
    ├── StorageError        the database cannot be used                         exit 74
    │   ├── StorageBusy         another process holds its lock: try again later
    │   └── StorageForeign      the file is another program's, or a newer edge-agent's
    ├── AgentClosed         an agent is used after it was closed                exit 1
    └── BadSetting          a setting has a value that cannot be used           exit 78

Every message is one sentence that names the wrong value and what to do about it. Foreign exceptions are
translated once, at the boundary (`raise ... from`); the code inside never sees them.
"""


class EdgeAgentError(Exception):
    """Everything edge-agent raises on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class BadQuestion(EdgeAgentError):
    """The question is empty, has the wrong number of options, or does not fit the context."""

    exit_code = 65


class BadData(EdgeAgentError):
    """A file of questions or an array of results cannot be measured."""

    exit_code = 65


class ModelError(EdgeAgentError):
    """The model cannot be used."""

    exit_code = 66


class ModelMissing(ModelError):
    """No model has this name or path."""


class ModelRefused(ModelError):
    """The file exists, but it is damaged, is not a GGUF, or is a model that edge-agent cannot prompt."""


class ModelBusy(ModelError):
    """Too many questions wait for the model, or it did not answer within the caller's time limit."""


class ConvertError(EdgeAgentError):
    """The checkpoint or the adapter cannot be converted."""

    exit_code = 65


class CloudUnavailable(EdgeAgentError):
    """Only the cloud may answer, or the queue is being drained, and no cloud answers."""

    exit_code = 69


class DownloadFailed(EdgeAgentError):
    """The network failed, or the file that arrived is not the expected one."""

    exit_code = 69


class StorageError(EdgeAgentError):
    """The database cannot be opened, is not ours, or refused a write that must not be lost."""

    exit_code = 74


class StorageBusy(StorageError):
    """Another process holds the database's lock, so the same call may work later."""


class StorageForeign(StorageError):
    """The file is no database of this edge-agent: a wrong folder was set, or a newer version was here."""


class AgentClosed(EdgeAgentError):
    """The program uses an agent that it has closed."""


class BadSetting(EdgeAgentError):
    """A setting has a value that cannot be used."""

    exit_code = 78
