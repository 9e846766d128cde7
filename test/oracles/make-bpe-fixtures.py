#!/usr/bin/env python3
"""Writes fixtures/tokenizers: a small byte-level BPE for each pattern that native/tokenizer/ knows, and what Hugging
Face's tokenizers makes of texts with it.

usage: make-bpe-fixtures.py OUT_DIR TEXT_FILE    (TEXT_FILE is data/moby-dick.txt; tokenizers 0.23.2)
Each NAME.json is a tokenizer.json; NAME.expected.json is a list of {text, ids}.
"""
import json, os, random, re, sys
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

out, text_file = sys.argv[1:3]
words = r"[^\r\n\p{L}\p{N}]?"
contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
spaces = r"\s*[\r\n]+|\s+(?!\S)|\s+"
cl100k = contractions + "|" + words + r"\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + spaces
upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
o200k = (f"{words}{upper}*{lower}+{contractions}?|{words}{upper}+{lower}*{contractions}?" + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + spaces)
deepseek = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
# name: splits, none for ByteLevel's own; normalizer; ignore_merges; prefix space
VARIANTS = {
    "gpt2": ([], None, False, True),
    "qwen": ([cl100k % r"\p{N}"], "NFC", False, False),
    "llama3": ([cl100k % r"\p{N}{1,3}"], None, True, False),
    "o200k": ([o200k], None, True, False),
    "deepseek": (deepseek, None, False, False),
}
rng = random.Random(7)
source = open(text_file, encoding="utf8").read()
han = "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长"

def chinese(n):
    return "".join(rng.choice(han) if rng.random() < 0.9 else rng.choice("，。！ \n") for _ in range(n))

code = "for (int i = 0; i < 10; ++i) {\n    if (x[i] != nullptr) return fooBar->getHTTPResponse(0x1F600, 3.14159);\n}\r\n\treturn \"\";\n" * 40
corpus = [source[40000:160000], code, chinese(8000), "HELLO World's We'LL it'S ÉCOLE école Привет мир 日本語のテキスト カタカナ ー\n" * 50, "😀😃👩‍👩‍👧 🇩🇪\n" * 50, " ".join(str(rng.randint(0, 10**6)) for _ in range(800))]

alphabet = ["'s", "'t", "'RE", "'Ve", "'LL", "'d", "'\u017f", "'", "1", "12", "1234567", "\u0661\u0662", "½", "Ⅷ", "\r\n", "\n", "\n\n", " ", "  ", "    ", "\t", "\x0b", "\x85", "\xa0",
    "\u3000", "\u2028", "\u200b", "\ufeff", "/", "//", "...", "_", "foo", "Foo", "FOO", "fooBar", "FOOBar", "ǅ", "ʰ", "ª", "\u0295", "e\u0301", "é", "\u0301", "\u0323\u0307", "\u0307\u0323", "q\u0307\u0323",
    "日本", "中", "ー", "・", "か\u3099", "가", "\u1100\u1161\u11a8", "हिन्दी", "क\u093c", "ไทย", "שָׁלוֹם", "مُحَمَّد", "Å", "\u212b", "😀", "👩‍👩‍👧", "🇩🇪", "<", "<|", "<|end|>", "<|end", "<|ende|>", "<tool>", "\ufffd", "\U000e0020",
    "\U0010ffff", "\ue000", "\x00", "\x7f", "the", " whale", " Ahab", "的", "说", "\U00011938", "\U00011935\U00011930", "\u0897\u0301", "\U0001e6e3\u0301", "\u20c1", "\U000323b0"]

def texts():
    yield from ["", " ", "a", "\n", "Call me Ishmael. Some years ago--never mind how long precisely--", "It's we'll I'M you'RE they'd", code[:300], chinese(60),
        "  two\n\n  lines \r\n\r\n\tend  ", "1234567890 3.14 1,000,000 ٣٤٥", "<|end|><|ende|> <|end|>\u0338 x<tool>\u0338y", "a\u0301<|end|>\u0301b", "ABCdef ABCDÉF éCOLE ǅabc ʰA a\u0301B A\u0301b \u0301A",
        "あ・い・ー中文abc中1文、「」", "foo.bar /baz !x #include <a> $x_y", "\u200b\u200bword\u200b1\u00ad\u00ad", "a" * 300, "ab" * 200, " " * 200 + "x", "=" * 130, "é" * 150, "e\u0301" * 100, "a\u030c", "u\u0328", "\u0dd9\u0ddf", "s\u0326 o\u031b", "\n" * 140, "的" * 90]
    for n in range(150):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 24)))

for name, (splits, normalizer, ignore, prefix) in VARIANTS.items():
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore))
    if normalizer: tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=not splits)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated") for split in splits] + [byte_level]) if splits else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(["<|end|>", "<|ende|>"])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=True), AddedToken("whale", normalized=True)])
    path = os.path.join(out, f"{name}.json")
    with open(path, "w", encoding="utf8") as file: json.dump(json.loads(tokenizer.to_str()), file, ensure_ascii=True, separators=(",", ":"))
    tokenizer = Tokenizer.from_file(path)
    rng.seed(11)
    with open(os.path.join(out, f"{name}.expected.json"), "w") as file:
        rows = [json.dumps({"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}, separators=(",", ":")) for text in texts()]
        file.write("[\n" + ",\n".join(rows) + "\n]\n")
