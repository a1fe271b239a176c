"""BERT-base encoder."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

VOCAB_SIZE = 30522
MAX_POSITIONS = 512
SEGMENTS = 2
LAYER_NORM_EPS = 1e-12


class Embeddings(nn.Module):
    """Sum of token, position and segment embeddings, normalised; the segment is always the first."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB_SIZE, hidden)
        self.positions = nn.Embedding(MAX_POSITIONS, hidden)
        self.segments = nn.Embedding(SEGMENTS, hidden)
        self.norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Maps [batch, length] to [batch, length, hidden]."""
        length = token_ids.shape[1]
        embedded = self.tokens(token_ids) + self.positions.weight[:length] + self.segments.weight[0]
        normed: Tensor = self.norm(embedded)
        return normed


class SelfAttention(nn.Module):
    """Multi-head attention in plain matrix products and softmax, without a mask."""

    # Seeded evenly, attention would weigh all tokens alike and, over 12 layers, make their
    # states equal: the inputs of the softmax are seeded wide, what is added to the tokens small.
    init_gains: ClassVar[dict[str, float]] = {"query": 2.0, "key": 2.0, "output": 0.5}

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = hidden // heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape [batch, length, hidden]."""
        query = self._split_heads(self.query(x))
        key = self._split_heads(self.key(x))
        value = self._split_heads(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.head_size)
        context = torch.matmul(torch.softmax(scores, dim=-1), value)
        output: Tensor = self.output(context.transpose(1, 2).reshape(x.shape))
        return output

    def _split_heads(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        return x.reshape(batch, length, self.heads, self.head_size).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Self-attention and a GELU feed-forward network, each added to its input and then normalised."""

    def __init__(self, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.attention = SelfAttention(hidden, heads)
        self.attention_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)
        self.ffn = nn.Sequential(nn.Linear(hidden, ffn), nn.GELU(), nn.Linear(ffn, hidden))
        self.ffn_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape [batch, length, hidden]."""
        x = self.attention_norm(x + self.attention(x))
        x = self.ffn_norm(x + self.ffn(x))
        return x


class BertEncoder(nn.Module):
    """Encoder of Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2018).

    Embeddings and encoder, without the pooler and the pre-training heads.
    Dropout is left out: the network is for inference.
    """

    def __init__(self, layers: int, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(hidden)
        self.layers = nn.Sequential(*(EncoderLayer(hidden, heads, ffn) for _ in range(layers)))

    def forward(self, token_ids: Tensor) -> Tensor:
        """Maps token ids [batch, length] to the last hidden state [batch, length, hidden]."""
        hidden_state: Tensor = self.layers(self.embeddings(token_ids))
        return hidden_state


def bert_base() -> BertEncoder:
    """Builds the encoder of BERT-base: 12 layers, hidden size 768, 12 heads."""
    return BertEncoder(layers=12, hidden=768, heads=12, ffn=3072)
