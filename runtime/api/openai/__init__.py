"""The OpenAI dialect: requests become those of the Ollama dialect, and its answers become OpenAI's."""
