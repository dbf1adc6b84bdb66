"""What chat clients speak: chat completions, responses and the list of models, in OpenAI's shapes."""
