"""The whole model: embeddings, encoder, decoder, readout. It names no arm."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.errors import SettingError, check_switches
from attnspan.models.decoders.base import BuildDecoder, DecoderOutput, Sizes
from attnspan.models.encoders.base import BuildEncoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class Seq2Seq(nn.Module):
    """p(y | x) = prod_t softmax(W_o o_t), with o_t from the decoder.

    Args:
        encoder: builds the encoder.
        decoder: builds the decoder; the arm.
        rnn: builds the recurrent cells of both.
        source_vocabulary_size: number of source tokens.
        target_vocabulary_size: V.
        embedding_size: E, of source and of target tokens.
        hidden_size: H.
        dropout: probability, on embeddings and before the readout.
        tied_target_embeddings: the readout's matrix is that of the target embeddings (Press and Wolf 2017).

    Raises:
        SettingError: embeddings are tied to an output of another size.
    """

    def __init__(
        self,
        *,
        encoder: BuildEncoder,
        decoder: BuildDecoder,
        rnn: BuildRecurrence,
        source_vocabulary_size: int,
        target_vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        dropout: float,
        tied_target_embeddings: bool,
    ) -> None:
        super().__init__()
        check_switches(tied_target_embeddings=tied_target_embeddings)
        self.source_embedding = nn.Embedding(source_vocabulary_size, embedding_size)
        self.target_embedding = nn.Embedding(target_vocabulary_size, embedding_size)
        self.encoder = encoder(embedding_size=embedding_size, rnn=rnn)
        memory, final = self.encoder.memory_size, self.encoder.final_size
        sizes = Sizes(embedding=embedding_size, hidden=hidden_size, memory=memory, final=final)
        self.decoder = decoder(sizes=sizes, rnn=rnn)
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

    def encode(self, source: Int[Tensor, "B S"], lengths: Int[Tensor, " B"]) -> Memory:
        """Read sources into a memory that is ready for decoding; ``lengths`` are on the CPU."""
        memory = self.encoder(self.dropout(self.source_embedding(source)), lengths)
        return self.decoder.prepare(memory)

    def step(
        self, previous: Int[Tensor, " B"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "B V"], DecoderOutput]:
        """Read previous tokens: logits of the next ones, and the decoder's step."""
        decoded = self.decoder.step(self.dropout(self.target_embedding(previous.unsqueeze(1))), state, memory)
        return self.readout(self.dropout(decoded.output.squeeze(1))), decoded

    @torch.no_grad()
    def has_attention(self) -> bool:
        """Whether the decoder's steps have attention weights: it takes one, and draws no random numbers."""
        device = self.readout.weight.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            memory = self.encode(torch.zeros(1, 1, dtype=torch.long, device=device), torch.ones(1, dtype=torch.long))
            first = torch.zeros(1, dtype=torch.long, device=device)
            return self.step(first, self.decoder.start(memory), memory)[1].weights is not None

    def forward(
        self, source: Int[Tensor, "B S"], lengths: Int[Tensor, " B"], target_input: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B T S"] | None]:
        """Read a known target (teacher forcing): logits, and attention weights, or None where the wiring has none.

        ``lengths`` are on the CPU; ``target_input`` is <bos> and the target without its last token.
        """
        memory = self.encode(source, lengths)
        decoded = self.decoder.unroll(self.dropout(self.target_embedding(target_input)), memory)
        return self.readout(self.dropout(decoded.output)), decoded.weights
