"""nano's tokenizer: a small byte-level BPE with Florence-2's 1,024 extra tokens, in Microsoft's order.

    python recipes/nano/vocabulary.py --papers DIR --out tokenizer.json

Ids: <s> 0, <pad> 1, </s> 2, <unk> 3, the BPE, <mask>, then the 1,024 Florence tokens and <image>; 3,072 in all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SIZE = 3072
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
FLORENCE = [
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{index}>" for index in range(1000)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
]
PROMPTS = (
    "What is the text in the image?",
    "What is the text in the image, with regions?",
    "What does the image describe?",
    "Describe in detail what is shown in the image.",
    "Describe with a paragraph what is shown in the image.",
    "Locate the objects with category name in the image.",
    "Locate the objects in the image, with their descriptions.",
    "Locate the region proposals in the image.",
    "Locate the phrases in the caption:",
)
WORDS = (
    *("table", "figure", "caption", "text", "heading", "title", "equation", "algorithm"),
    *("code", "list", "footnote", "reference", "header", "footer", "picture", "formula"),
    *("chart", "image", "abstract", "author", "logo", "page", "number", "section"),
    *("diagram", "plot", "photo", "seal", "stamp", "signature", "paragraph"),
)


def texts(papers: Path | None) -> Iterator[str]:
    """The prompts and common labels many times over, so that each is one token, then the words of the papers."""
    for _ in range(20000):
        yield from PROMPTS
        yield from WORDS
    for file in sorted(papers.rglob("*.pdf")) if papers else ():
        document = pypdfium2.PdfDocument(file)
        for index in range(min(len(document), 4)):
            yield document[index].get_textpage().get_text_range()


def build(papers: Path | None) -> Tokenizer:
    """Train the tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(FLORENCE) - 2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(papers), trainer)
    extra = ["<mask>", *FLORENCE, "<image>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--papers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer = build(options.papers)
    tokenizer.save(str(options.out))
    print(f"{tokenizer.get_vocab_size()} tokens; <loc_0> is {tokenizer.token_to_id('<loc_0>')}")


if __name__ == "__main__":
    main()
