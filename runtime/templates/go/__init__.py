"""Go templates: text with {{actions}}, parsed to a tree and evaluated against a conversation.

Source: Go's text/template documentation, and the Ollama API, "Template".
"""
