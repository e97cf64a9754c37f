"""Chat templates that show pictures, as the models were trained on; a text model's own cannot."""

from __future__ import annotations

_ASKED = """\
        {%- if message['content'] is string -%}{{- message['content'] -}}
        {%- else -%}
            {%- for part in message['content'] if part['type'] == 'image' -%}
                {{- '<image>\\n' -}}
            {%- endfor -%}
            {%- for part in message['content'] if part['type'] == 'text' -%}
                {{- part['text'] -}}
            {%- endfor -%}
        {%- endif -%}
"""
_SAID = """\
        {%- if message['content'] is string -%}{{- message['content'] -}}
        {%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}
"""

VICUNA_TEMPLATE = (
    """\
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {{- (message['content'] if message['content'] is string else message['content'][0]['text']) + ' ' -}}
    {%- elif message['role'] == 'user' -%}
        {{- 'USER: ' -}}
"""
    + _ASKED
    + """\
        {{- ' ' -}}
    {%- else -%}
        {{- 'ASSISTANT: ' -}}
"""
    + _SAID
    + """\
        {{- eos_token -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""
)

MISTRAL_TEMPLATE = (
    """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '[INST] ' -}}
"""
    + _ASKED
    + """\
        {{- ' [/INST]' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- ' ' -}}
"""
    + _SAID
    + """\
        {{- eos_token -}}
    {%- else -%}
        {{- raise_exception('this model knows the roles user and assistant') -}}
    {%- endif -%}
{%- endfor -%}
"""
)

CHATML_TEMPLATE = (
    """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['role'] == 'user' -%}
"""
    + _ASKED
    + """\
    {%- else -%}
"""
    + _SAID
    + """\
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
)

VIPLLAVA_TEMPLATE = (
    """\
{%- if messages[0]['role'] != 'system' -%}
    {{- 'A chat between a curious human and an artificial intelligence assistant. ' -}}
    {{- "The assistant gives helpful, detailed, and polite answers to the human's questions." -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
"""
    + _SAID
    + """\
    {%- elif message['role'] == 'user' -%}
        {{- '###Human: ' -}}
"""
    + _ASKED
    + """\
    {%- else -%}
        {{- '###Assistant: ' -}}
"""
    + _SAID
    + """\
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '###Assistant:' -}}{%- endif -%}
"""
)

IDEFICS3_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {{- message['role'] | capitalize -}}
    {%- if message['content'] is string -%}{{- ': ' + message['content'] -}}
    {%- else -%}
        {{- ':' if message['content'] and message['content'][0]['type'] == 'image' else ': ' -}}
        {%- for part in message['content'] -%}
            {{- '<image>' if part['type'] == 'image' else part['text'] -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<end_of_utterance>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""

TEMPLATES = {"llama": VICUNA_TEMPLATE, "mistral": MISTRAL_TEMPLATE, "qwen2": CHATML_TEMPLATE}
"""The ``model_type`` of the language model → its template."""
