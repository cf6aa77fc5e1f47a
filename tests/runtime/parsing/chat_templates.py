"""Chat templates as the families have them, cut down to how they print tools, calls and reasoning."""

# ruff: noqa: E501  # lines break where the templates' own lines would
from __future__ import annotations

_QWEN_CALLS = (
    "{%- if m.tool_calls %}{%- for call in m.tool_calls %}{%- if (loop.first and content) or not loop.first %}{{ '\\n' }}"
    '{%- endif %}{%- if call.function %}{%- set call = call.function %}{%- endif %}{{- \'<tool_call>\\n{"name": "\' }}'
    '{{- call.name }}{{- \'", "arguments": \' }}{%- if call.arguments is string %}{{- call.arguments }}{%- else %}'
    "{{- call.arguments | tojson }}{%- endif %}{{- '}\\n</tool_call>' }}{%- endfor %}{%- endif %}"
)
QWEN3 = (
    "{%- if tools %}<|im_start|>system\n# Tools\n<tools>{%- for tool in tools %}{{ '\\n' ~ tool | tojson }}{%- endfor %}"
    '\n</tools>\nReturn <tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
    "{%- endif %}{%- for m in messages %}{%- set content = m.content if m.content is string else '' %}"
    "{%- if m.role == 'user' %}{{- '<|im_start|>user\\n' + content + '<|im_end|>\\n' }}{%- else %}"
    "{%- set reasoning = m.reasoning_content if m.reasoning_content is string else '' %}"
    "{{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
    + _QWEN_CALLS
    + "{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
HERMES = (
    "{{- bos_token }}{%- if tools %}<|im_start|>system\nFunctions: <tools>{{ tools | tojson }}</tools><|im_end|>\n"
    "{%- endif %}{%- for m in messages %}{%- set content = m.content %}{%- if m.role == 'user' %}"
    "{{- '<|im_start|>user\\n' + content + '<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>assistant' }}"
    "{%- if m.tool_calls %}{%- for call in m.tool_calls %}{{- '\\n<tool_call>\\n' }}"
    '{{- \'{"name": "\' ~ call.function.name ~ \'", "arguments": \' ~ call.function.arguments | tojson ~ "}" }}'
    "{{- '\\n</tool_call>' }}{%- endfor %}{%- else %}{{- '\\n' + content }}{%- endif %}{{- '<|im_end|>\\n' }}"
    "{%- endif %}{%- endfor %}"
)
LLAMA31 = (
    "{{- bos_token }}{{- '<|start_header_id|>system<|end_header_id|>\\n\\nEnvironment: ipython\\n<|eot_id|>' }}"
    "{%- for m in messages %}{%- if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
    "{%- if loop.first and tools %}{%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}{%- endif %}"
    "{{- m.content | trim + '<|eot_id|>' }}"
    "{%- elif 'tool_calls' in m %}{%- if not m.tool_calls | length == 1 %}{{- raise_exception('one call only') }}"
    "{%- endif %}{%- set call = m.tool_calls[0].function %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{{- '{\"name\": \"' + call.name + '\", ' }}{{- '\"parameters\": ' }}{{- call.arguments | tojson }}{{- '}' }}"
    "{{- '<|eot_id|>' }}{%- endif %}{%- endfor %}"
)
MISTRAL = (
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{%- if tools %}"
    "{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}"
    "{{- '[INST] ' + m.content + '[/INST]' }}{%- elif m.tool_calls is defined %}{{- '[TOOL_CALLS] [' }}"
    "{%- for call in m.tool_calls %}{%- if call.id is not defined or call.id | length != 9 %}"
    "{{- raise_exception('ids are nine letters') }}{%- endif %}{%- set out = call.function | tojson %}{{- out[:-1] }}"
    "{{- ', \"id\": \"' + call.id + '\"}' }}{%- endfor %}{{- ']' + eos_token }}{%- else %}"
    "{{- ' ' + m.content | trim + eos_token }}{%- endif %}{%- endfor %}"
)
MAGISTRAL = (
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '[INST]' + m.content + '[/INST]' }}"
    "{%- else %}{%- if m.reasoning_content %}{{- '[THINK]' + m.reasoning_content + '[/THINK]' }}{%- endif %}"
    "{{- m.content }}{%- for call in m.tool_calls or [] %}{%- set args = call.function.arguments %}"
    "{%- if args is not string %}{%- set args = args | tojson %}{%- endif %}"
    "{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + args }}{%- endfor %}{{- eos_token }}{%- endif %}{%- endfor %}"
)
DEEPSEEK = (
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '<\uff5cUser\uff5c>' + m.content }}"
    "{%- elif m.tool_calls %}{{- '<\uff5cAssistant\uff5c></think>' + (m.content or '') }}{%- for call in m.tool_calls %}"
    "{%- if loop.first %}{{- '<\uff5ctool\u2581calls\u2581begin\uff5c>' }}{%- endif %}"
    "{{- '<\uff5ctool\u2581call\u2581begin\uff5c>' + call.function.name + '<\uff5ctool\u2581sep\uff5c>'"
    " + call.function.arguments + '<\uff5ctool\u2581call\u2581end\uff5c>' }}{%- endfor %}"
    "{{- '<\uff5ctool\u2581calls\u2581end\uff5c><\uff5cend\u2581of\u2581sentence\uff5c>' }}"
    "{%- else %}{%- set content = m.content %}"
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}"
    "{{- '<\uff5cAssistant\uff5c></think>' + content + '<\uff5cend\u2581of\u2581sentence\uff5c>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<\uff5cAssistant\uff5c>' + ('<think>' if thinking else '</think>') }}{%- endif %}"
)
GEMMA4 = (
    "{{- bos_token }}{%- for m in messages %}{{- '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
    "{%- if m.reasoning_content %}{{- '<|channel>thought\\n' + m.reasoning_content + '\\n<channel|>' }}{%- endif %}"
    "{%- for call in m.tool_calls or [] %}{{- '<|tool_call>call:' + call.function.name + '{' }}"
    "{%- for key, value in call.function.arguments | dictsort %}{%- if not loop.first %},{%- endif %}"
    "{{- key + ':<|\"|>' + value + '<|\"|>' }}{%- endfor %}{{- '}<tool_call|>' }}{%- endfor %}"
    "{{- m.content | trim + '<turn|>\\n' }}{%- endfor %}"
)
FUNCTIONGEMMA = (
    "{{- bos_token }}{%- for m in messages %}{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) }}"
    "{{- '\\n' }}{%- for call in m.tool_calls or [] %}{{- '<start_function_call>call:' + call.function.name + '{' }}"
    "{%- for key, value in call.function.arguments | dictsort %}{{- key + ':<escape>' + value + '<escape>' }}"
    "{%- endfor %}{{- '}<end_function_call>' }}{%- endfor %}{{- m.content + '<end_of_turn>\\n' }}{%- endfor %}"
)
GEMMA3 = (
    "{{- bos_token }}{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Conversation roles must alternate') }}{%- endif %}"
    "{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim }}"
    "{{- '<end_of_turn>\\n' }}{%- endfor %}"
)
GRANITE = (
    "{%- if tools %}<|start_of_role|>tools<|end_of_role|>{{ tools | tojson(indent=4) }}<|end_of_text|>\n{%- endif %}"
    "{%- for m in messages %}{{- '<|start_of_role|>' + m.role + '<|end_of_role|>' }}"
    "{%- if m.tool_calls %}{{- '<|tool_call|>[' }}{%- for call in m.tool_calls %}"
    '{{- \'{"name": "\' + call.function.name + \'", "arguments": \' + call.function.arguments | tojson + "}" }}'
    "{%- endfor %}{{- ']' }}{%- else %}{{- m.content }}{%- endif %}{{- '<|end_of_text|>\\n' }}{%- endfor %}"
)
PHI4_MINI = (  # prints no calls at all
    "{%- for m in messages %}{%- if loop.first and tools %}{{- '<|system|><|tool|>' + tools | tojson + '<|/tool|><|end|>' }}"
    "{%- endif %}{{- '<|' + m.role + '|>' + m.content + '<|end|>' }}{%- endfor %}{# calls: <|tool_call|>[…]<|/tool_call|> #}"
)
LFM2 = (  # calls come back as the content that the model wrote
    "{{- bos_token }}{%- if tools %}<|im_start|>system\nList of tools: <|tool_list_start|>{{ tools | tojson }}"
    "<|tool_list_end|> (answer with <|tool_call_start|>[…]<|tool_call_end|>)<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
)
LFM2_5 = (
    "{{- bos_token }}{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.tool_calls %}"
    "{{- '<|tool_call_start|>[' }}{%- for call in m.tool_calls %}{{- call.function.name + '(' }}"
    "{%- for key, value in call.function.arguments.items() %}{{- key + '=\"' + value + '\"' }}{%- endfor %}{{- ')' }}"
    "{%- endfor %}{{- ']<|tool_call_end|>' }}{%- endif %}{{- m.content + '<|im_end|>\\n' }}{%- endfor %}"
)
QWEN3_CODER = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content }}{%- for call in m.tool_calls or [] %}"
    "{{- '\\n<tool_call>\\n<function=' + call.function.name + '>\\n' }}"
    "{%- for key, value in call.function.arguments | items %}"
    "{{- '<parameter=' + key + '>\\n' + value + '\\n</parameter>\\n' }}{%- endfor %}{{- '</function>\\n</tool_call>' }}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}"
)
GLM = (
    "[gMASK]<sop>{%- for m in messages %}{%- if m.role == 'user' %}<|user|>{{ m.content }}{%- else %}<|assistant|>"
    "{%- if m.reasoning_content %}{{ '<think>' + m.reasoning_content.strip() + '</think>' }}{%- else %}{{ '</think>' }}"
    "{%- endif %}{{ m.content }}{%- for call in m.tool_calls or [] %}{{ '<tool_call>' + call.function.name }}"
    "{%- for k, v in call.function.arguments.items() %}<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value>"
    "{%- endfor %}</tool_call>{%- endfor %}{%- endif %}{%- endfor %}"
)
GPT_OSS = (
    "<|start|>system<|message|>You are ChatGPT.<|end|>{%- for m in messages %}{%- if m.role == 'user' %}"
    "{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}{%- elif 'tool_calls' in m %}"
    "{%- set call = m.tool_calls[0].function %}{{- '<|start|>assistant to=' }}{{- 'functions.' + call.name }}"
    "{{- '<|channel|>commentary json<|message|>' + call.arguments | tojson + '<|call|>' }}{%- else %}"
    "{%- if m.thinking %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{%- endif %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}{%- endif %}{%- endfor %}"
)
COHERE = (
    "{%- for m in messages %}{{- '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' if m.role == 'user' else '<|CHATBOT_TOKEN|>') }}"
    "{%- if m.reasoning_content %}{{- '<|START_THINKING|>' + m.reasoning_content + '<|END_THINKING|>' }}{%- endif %}"
    "{%- if m.tool_calls %}{{- '<|START_ACTION|>[' }}{%- for call in m.tool_calls %}"
    '{{- \'{"tool_call_id": "0", "tool_name": "\' + call.function.name + \'", "parameters": \' }}'
    "{{- call.function.arguments | tojson + '}' }}{%- endfor %}{{- ']<|END_ACTION|>' }}{%- else %}"
    "{{- '<|START_RESPONSE|>' + m.content + '<|END_RESPONSE|>' }}{%- endif %}{{- '<|END_OF_TURN_TOKEN|>' }}{%- endfor %}"
)
OLMO3 = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content }}{%- if m.tool_calls %}"
    "{{- '<function_calls>' }}{%- for call in m.tool_calls %}{{- call.function.name + '(' }}"
    "{%- for key, value in call.function.arguments.items() %}{{- key + '=' + value | tojson }}{%- endfor %}{{- ')\\n' }}"
    "{%- endfor %}{{- '</function_calls>' }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
)
LLAMA4 = (
    "{%- for m in messages %}{{- '<|header_start|>' + m.role + '<|header_end|>\\n\\n' }}{%- if m.tool_calls %}{{- '[' }}"
    "{%- for call in m.tool_calls %}{{- call.function.name + '(' }}{%- for key, value in call.function.arguments.items() %}"
    "{{- key + '=' + value | tojson }}{%- endfor %}{{- ')' }}{%- endfor %}{{- ']' }}{%- endif %}"
    "{{- m.content + '<|eot|>' }}{%- endfor %}"
)
COMMAND_R = (
    "{%- for m in messages %}{{- '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' if m.role == 'user' else '<|CHATBOT_TOKEN|>') }}"
    "{%- if m.tool_calls %}{{- 'Action: ```json\\n[' }}{%- for call in m.tool_calls %}"
    '{{- \'{"tool_name": "\' + call.function.name + \'", "parameters": \' + call.function.arguments | tojson + "}" }}'
    "{%- endfor %}{{- ']```' }}{%- endif %}{{- m.content + '<|END_OF_TURN_TOKEN|>' }}{%- endfor %}"
)
