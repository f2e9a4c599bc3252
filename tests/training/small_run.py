"""The overrides of a run that takes seconds."""

from __future__ import annotations

MODEL = [
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.num_heads=2",
    "model.expert_size=32",
    "model.num_experts=4",
]
# Short blocks, a small evaluation set.
DATA = [
    "data.sequence_length=32",
    "data.train_words=20000",
    "data.validation_words=4000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=1024",
    "data.probe_tokens=256",
]
SMALL = [
    *MODEL,
    *DATA,
    "router.dim=4",
    "trainer.max_steps=12",
    "trainer.batch_size=4",
    "trainer.log_every=3",
    "trainer.checkpoint_every=4",
    "logger.progress=false",
]
