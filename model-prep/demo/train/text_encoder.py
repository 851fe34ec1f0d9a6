"""Stage `text`: the text encoder alone learns to foretell a picture's layout.

From its end token, a linear layer predicts the latents averaged over 4×4 cells. Without this, the UNet learns kinds and
colours, but 10,000 steps teach it nothing of left and right; with it, those are learned within 1,000.
"""
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from autoencoder import latents
from common import MODEL, TOKENS, Clock, captions, optimize, token_ids, tokenizer

PATH = MODEL / "text_encoder"
CHANNELS = 128
HELD_OUT = 500  # captions, the last ones


def config(vocabulary):
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=CHANNELS, intermediate_size=4 * CHANNELS, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=TOKENS, hidden_act="quick_gelu", bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1, projection_dim=CHANNELS)


def text(minutes, batch=128):
    tokenize = tokenizer()
    ids = token_ids(tokenize, captions())
    end = (ids == len(tokenize) - 1).int().argmax(1)
    ids = ids[:, :end.max() + 1]
    wanted = layouts()
    model = CLIPTextModel(config(len(tokenize)))
    model.set_attn_implementation("eager")
    head = torch.nn.Linear(CHANNELS, wanted.shape[1])

    def error(rows):
        states = model(ids[rows]).last_hidden_state[torch.arange(len(rows)), end[rows]]
        return (head(states) - wanted[rows]).pow(2).mean()

    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.01)
    clock, held_out = Clock(minutes, 1e-3, warmup=50), torch.arange(len(ids) - HELD_OUT, len(ids))
    for step in clock.steps(optimizer):
        loss = error(torch.randint(0, held_out[0], (batch,)))
        optimize(optimizer, loss)
        if step % 100 == 0:
            with torch.no_grad():
                clock.report(f"loss {loss.item():.4f} held out {error(held_out).item():.4f}")
    model.save_pretrained(PATH)


def layouts():
    """Each picture's latents averaged over 4×4 cells, every value with mean 0 and deviation 1."""
    cells = torch.nn.functional.avg_pool2d(latents()[:, 0], 4).flatten(1)
    return (cells - cells.mean(0)) / cells.std(0)
