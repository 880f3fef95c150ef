# Trains small tokenizers of the kinds that language models use, and writes what Python's tokenizers and transformers make of texts and
# conversations with them. Usage: python make.py TEXT_FILE
import json, os, shutil, sys
from datetime import datetime
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

here = os.path.dirname(os.path.abspath(__file__))
text = open(sys.argv[1], encoding="utf8").read()[:60000]
corpus = text.split("\n") + ["naïve café — 東京 🚀", "Straße, größer", "    indented\tcode = {x: 1}", "12345 67,890.12"]

texts = [
    "", " ", "   ", "\n", "\n\n  \n", "a", " a", "a ", "  a  b   c    ", "\t\ttabs\tinside \t",
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.",
    "I'll we've DON'T can't it's 'quoted' ''", "Hello, world! How are you?", "http://example.com/path?query=1&b=2#x",
    "1 12 123 1234 12345 3.14159 1,000,000 ٣٤٥ ½ ²", "naïve café façade Ångström", "e\u0301 vs \u00e9, A\u030a vs \u00c5",
    "東京都に住んでいます。", "한국어 텍스트", "Привет, мир!", "العربية مرحبا", "ไทย ภาษา", "🚀👩‍👩‍👧‍👦🏳️‍🌈 emoji 👍🏽!", "\u200b\u200dzero\ufeffwidth", "\u00a0nbsp\u3000ideographic",
    "def f(x):\n    return x ** 2  # square\n\n\nprint(f(3))", "<s>not special</s>", "special <|im_start|>user\nhi<|im_end|>\n", "<|im_start|><|im_end|><|im_start|>",
    "x<|im_end|> y", "  <|im_start|>  spaced  ", "mixed<tool>tag</tool>end", "▁underscore▁▁", "Ġ literal Ċ", "null\u0000byte", "\U0001f9ff\U00010348 rare", "ﬁ ligature Ⅷ ㎏",
    "The quick brown fox\r\njumps over\rthe lazy dog", "a" * 40, "supercalifragilisticexpialidocious", "—–-_ “quotes” ‘single’ …", "🤗",
]

specials = ["<|im_start|>", "<|im_end|>"]


def train(model, trainer_class, vocab, extra, **parts):
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        if name != "post_processor":
            setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(corpus, trainer_class(vocab_size=vocab, show_progress=False, **extra))
    return tokenizer


def save(name, tokenizer, config, chats=()):
    path = os.path.join(here, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    raw = json.loads(tokenizer.to_str())
    json.dump(raw, open(os.path.join(path, "tokenizer.json"), "w", encoding="utf8"), ensure_ascii=False, separators=(",", ":"))
    json.dump(config, open(os.path.join(path, "tokenizer_config.json"), "w", encoding="utf8"), ensure_ascii=False)
    loaded = PreTrainedTokenizerFast.from_pretrained(path)
    cases = [{
        "text": t,
        "ids": loaded.encode(t),
        "plain": loaded.encode(t, add_special_tokens=False),
        "decoded": loaded.decode(loaded.encode(t)),
        "skipped": loaded.decode(loaded.encode(t), skip_special_tokens=True),
    } for t in texts]
    batch = loaded(["Hello, world!", "a", "First Citizen speaks again"], padding=True, truncation=True, max_length=9)
    whole = loaded.encode("東京 🚀é", add_special_tokens=False)
    parts = [{"text": whole[i:j], "decoded": loaded.decode(whole[i:j])} for i in range(len(whole)) for j in range(i + 1, len(whole) + 1)]
    result = {"cases": cases, "parts": parts, "batch": {k: batch[k] for k in ("input_ids", "attention_mask")}}
    json.dump(result, open(os.path.join(path, "expected.json"), "w", encoding="utf8"), ensure_ascii=False, separators=(",", ":"))
    return loaded


# Llama 2: SentencePiece's BPE with bytes for what is not in the vocabulary.
bytes_ = [f"<0x{b:02X}>" for b in range(256)]
llama2 = train(
    models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True), trainers.BpeTrainer, 600,
    {"special_tokens": ["<unk>", "<s>", "</s>"] + bytes_, "limit_alphabet": 70},
    normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    pre_tokenizer=pre_tokenizers.Split(Regex("▁+[^▁]*"), "isolated"),  # while it is trained, as SentencePiece does
    decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
)
raw = json.loads(llama2.to_str())
raw["pre_tokenizer"] = None
raw["added_tokens"] = [t for t in raw["added_tokens"] if not t["content"].startswith("<0x")]
llama2 = Tokenizer.from_str(json.dumps(raw))
llama2.add_special_tokens(specials)
llama2.add_tokens(["<tool>", "</tool>"])
llama2.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
save("llama2", llama2, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>", "padding_side": "left", "model_max_length": 1e30})

# The newer form of the same, and Unigram, as T5 and Gemma's relatives have it.
unigram = train(
    models.Unigram(), trainers.UnigramTrainer, 500,
    {"special_tokens": ["<pad>", "</s>", "<unk>"], "unk_token": "<unk>"},
    normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]),
    pre_tokenizer=pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
    decoder=decoders.Metaspace(replacement="▁", prepend_scheme="always"),
)
unigram.add_special_tokens(specials)
unigram.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
save("unigram", unigram, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "model_max_length": 512})

# Llama 3 and Qwen: bytes after a regular expression that splits words, numbers and spaces.
split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
llama3 = train(
    models.BPE(ignore_merges=True), trainers.BpeTrainer, 700,
    {"special_tokens": [], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()},
    pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
    decoder=decoders.ByteLevel(),
)
llama3.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"] + specials)
llama3.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("</tool>", lstrip=True, rstrip=True)])
bos = llama3.token_to_id("<|begin_of_text|>")
llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)])])
save("llama3", llama3, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>", "clean_up_tokenization_spaces": True, "model_max_length": 131072})

qwen = train(
    models.BPE(), trainers.BpeTrainer, 600,
    {"special_tokens": [], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()},
    normalizer=normalizers.NFC(),
    pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split.replace("{1,3}", "")), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
    decoder=decoders.ByteLevel(),
)
qwen.add_special_tokens(["<|endoftext|>"] + specials)
qwen.post_processor = processors.ByteLevel(trim_offsets=False)
loaded = save("qwen", qwen, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "model_max_length": 32768})

# Conversations, by templates in the manner of public ones: with system prompts, tools, checks, dates, loops and white space.
templates = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "instruct": """{% if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] + '\\n\\n' %}
    {%- set rest = messages[1:] %}
{% else %}
    {%- set system = '' %}
    {%- set rest = messages %}
{% endif %}
{{ bos_token }}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user and assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'].strip() + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "tools": """{%- if tools %}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}
# Tools
{%- for tool in tools %}

{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first and tools %}{% continue %}{% endif %}
    {%- if message.content is defined and message.content is not none %}
{{ '<|im_start|>' ~ message.role }}
{{ message.content }}
    {%- else %}
{{ '<|im_start|>' ~ message.role }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {%- if call.function is defined %}{% set call = call.function %}{% endif %}

<tool_call>
{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}
</tool_call>
    {%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    "dated": """{%- set ns = namespace(turns=0) %}
{%- macro header(role) -%}
<|start|>{{ role | upper }}<|end|>
{%- endmacro %}
Today is {{ strftime_now('%d %B %Y') if date_string is not defined else date_string }}.
{% for m in messages if m.role != 'system' %}
{{ header(m.role) }} {% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}{% endif %}

{% set ns.turns = ns.turns + 1 %}
{% endfor %}
{{ ns.turns }} turns, keys {{ messages[0].keys() | list | sort | join(',') }}{{ [1, 2, 3] | length }}
{% if add_generation_prompt %}{{ header('assistant') }}{% endif %}""",
}
weather = {"type": "function", "function": {"name": "weather", "description": "The weather of a city & <more>, à demain", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1.5}}, "required": ["city"]}}}
chats = [
    {"messages": [{"role": "user", "content": "Hi there"}]},
    {"messages": [{"role": "user", "content": "  spaced \n"}, {"role": "assistant", "content": " ok "}, {"role": "user", "content": "東京 <|im_end|> \"q\" 'a'"}]},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2, "exact": True, "note": None}}}]}, {"role": "tool", "content": "{\"t\": 3}"}], "tools": [weather]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "part one, "}, {"type": "image"}, {"type": "text", "text": "two"}]}]},
    {"messages": [{"role": "assistant", "content": "first"}, {"role": "user", "content": "second"}]},
]
loaded.bos_token = "<|im_start|>"
expected = []
# Who gives a template what it was not written for gets Python's or JavaScript's way to print it: that is no specification.
meant = {"chatml": (0, 1, 2, 5), "instruct": (0, 1, 2, 5), "tools": (0, 1, 2, 3, 5), "dated": (0, 1, 2, 4, 5)}
for name, template in templates.items():
    for chat in (chats[i] for i in meant[name]):
        for prompt in (False, True):
            try:
                result = {"text": loaded.apply_chat_template(chat["messages"], chat_template=template, tools=chat.get("tools"), add_generation_prompt=prompt, tokenize=False, date_string="26 Jul 2026")}
            except Exception as error:
                result = {"error": str(error)}
            expected.append({"template": name, **chat, "prompt": prompt, **result})
json.dump({"templates": templates, "cases": expected}, open(os.path.join(here, "chat.json"), "w", encoding="utf8"), ensure_ascii=False, separators=(",", ":"))
