"""A tiny language model in a folder, with random weights."""

from pathlib import Path

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?')


def write_bert(folder: Path) -> str:
    """Write a BERT of two layers that knows the numbers up to 99.

    Args:
        folder (Path): An empty folder.

    Returns:
        str: What a config has as ``name`` of a ``BertModel``.
    """
    from transformers import BertConfig, BertModel, BertTokenizer

    words = [*SPECIAL, *map(str, range(100))]
    vocabulary = folder / 'vocab.txt'
    vocabulary.write_text('\n'.join(words))
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)
