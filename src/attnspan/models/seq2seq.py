"""The whole model: embeddings, encoder, decoder, readout. It names no arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from attnspan.errors import SettingError, check_switches
from attnspan.models.decoders.base import BuildDecoder, DecoderOutput, Readout, Sizes
from attnspan.models.encoders.base import BuildEncoder, SizesTensor, SourceTensor
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class Pixels(nn.Module):
    """Pixels as numbers from 0 to 1: what stands in place of the source embedding where sources are images."""

    def forward(self, source: UInt8[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        """x / 255."""
        return source / 255


class Seq2Seq(nn.Module):
    """p(y | x) = prod_t softmax(W_o o_t), with o_t from the decoder.

    Args:
        encoder: builds the encoder.
        decoder: builds the decoder; the arm.
        rnn: builds the recurrent cells of both.
        source_vocabulary_size: number of source tokens; None where the sources are images.
        target_vocabulary_size: V.
        unknown_id: of the token that a decoder reads in place of one that it has copied and the vocabulary lacks.
        embedding_size: E, of source and of target tokens.
        hidden_size: H.
        dropout: probability, on embeddings and before the readout.
        tied_target_embeddings: the readout's matrix is that of the target embeddings (Press and Wolf 2017).

    Raises:
        SettingError: embeddings are tied to an output of another size.
        ValueError: the encoder does not read such sources, or the decoder copies from images.
    """

    def __init__(
        self,
        *,
        encoder: BuildEncoder,
        decoder: BuildDecoder,
        rnn: BuildRecurrence,
        source_vocabulary_size: int | None,
        target_vocabulary_size: int,
        unknown_id: int,
        embedding_size: int,
        hidden_size: int,
        dropout: float,
        tied_target_embeddings: bool,
    ) -> None:
        super().__init__()
        check_switches(tied_target_embeddings=tied_target_embeddings)
        self.reads_images = source_vocabulary_size is None
        self.source_embedding = (
            Pixels() if source_vocabulary_size is None else nn.Embedding(source_vocabulary_size, embedding_size)
        )
        self.target_embedding = nn.Embedding(target_vocabulary_size, embedding_size)
        self.encoder = encoder(embedding_size=embedding_size, rnn=rnn)
        if self.reads_images != (self.encoder.input_channels is not None):
            reads, are = ("tokens", "images") if self.reads_images else ("images", "tokens")
            raise ValueError(f"{type(self.encoder).__name__} reads {reads}, and the sources of this data are {are}")
        sizes = Sizes(
            embedding=embedding_size,
            hidden=hidden_size,
            memory=self.encoder.memory_size,
            final=self.encoder.final_size,
            handed_over=self.encoder.handed_over,
        )
        self.decoder = decoder(sizes=sizes, rnn=rnn)
        if self.decoder.copies and self.reads_images:
            raise ValueError("the decoder copies tokens of the source, and the sources of this data are images")
        self.unknown_id = unknown_id
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(self.decoder.output_size, target_vocabulary_size)
        if tied_target_embeddings:
            if self.decoder.output_size != embedding_size:
                raise SettingError(
                    "tied_target_embeddings",
                    f"needs model.embedding_size={embedding_size} to be as large as the decoder's output, "
                    f"{self.decoder.output_size} (model.hidden_size={hidden_size})",
                )
            self.readout.weight = self.target_embedding.weight

    def encode(self, source: SourceTensor, lengths: SizesTensor) -> Memory:
        """Read sources into a memory that is ready for decoding; ``lengths`` are on the CPU."""
        in_target = None
        if self.decoder.copies:
            source, in_target = source.unbind(1)
        embedded = self.source_embedding(source)
        memory = self.encoder(embedded if self.reads_images else self.dropout(embedded), lengths)
        return self.decoder.prepare(memory if in_target is None else replace(memory, in_target=in_target))

    def step(
        self, previous: Int[Tensor, " B"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "B V"], DecoderOutput]:
        """Read previous tokens: logits of the next ones, and the decoder's step."""
        tokens = previous.unsqueeze(1)
        logits, decoded = self.decoder.read(tokens, self._embed(tokens), state, memory, self._read_out)
        return logits.squeeze(1), decoded

    @torch.no_grad()
    def has_attention(self) -> bool:
        """Whether the decoder's steps have attention weights: it takes one, and draws no random numbers."""
        device = self.readout.weight.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            source, sizes = self.random_sources([1])
            memory = self.encode(source.to(device), sizes)
            first = torch.zeros(1, dtype=torch.long, device=device)
            return self.step(first, self.decoder.start(memory), memory)[1].weights is not None

    def random_sources(self, lengths: Sequence[int]) -> tuple[SourceTensor, SizesTensor]:
        """Sources of so many tokens, or so many pixels wide, to try the model with; they and their sizes on the CPU."""
        sizes = torch.tensor(lengths)
        inside = torch.arange(max(lengths)) < sizes.unsqueeze(1)
        if (channels := self.encoder.input_channels) is not None:
            pixels = torch.randint(256, (len(lengths), channels, 3, max(lengths)), dtype=torch.uint8)
            heights = torch.tensor([3 - row % 2 for row in range(len(lengths))])
            inside = inside.unsqueeze(1) & (torch.arange(3) < heights.unsqueeze(1)).unsqueeze(2)
            return pixels * inside.unsqueeze(1), torch.stack([heights, sizes], dim=1)
        assert isinstance(self.source_embedding, nn.Embedding)
        most = self.source_embedding.num_embeddings
        tokens = torch.randint(min(1, most - 1), most, inside.shape) * inside
        if not self.decoder.copies:
            return tokens, sizes
        unknown = self.target_embedding.num_embeddings + torch.arange(max(lengths))  # every token is a word of its own
        return torch.stack([tokens, unknown * inside], dim=1), sizes

    def forward(
        self, source: SourceTensor, lengths: SizesTensor, target_input: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B T S"] | None]:
        """Read a known target (teacher forcing): logits, and attention weights, or None where the wiring has none.

        ``lengths`` are on the CPU; ``target_input`` is <bos> and the target without its last token.
        """
        logits, decoded = self.unroll(target_input, self.encode(source, lengths))
        return logits, decoded.weights

    def unroll(self, target_input: Int[Tensor, "B T"], memory: Memory) -> tuple[Float[Tensor, "B T V"], DecoderOutput]:
        """Read a known target from a prepared memory: logits, and the decoder's steps."""
        return self.decoder.read_target(target_input, self._embed(target_input), memory, self._read_out)

    def _embed(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        if self.decoder.copies:
            tokens = tokens.masked_fill(tokens >= self.target_embedding.num_embeddings, self.unknown_id)
        return self.dropout(self.target_embedding(tokens))

    @property
    def _read_out(self) -> Readout:
        return Readout(dropout=self.dropout, linear=self.readout)
