"""Policy against start on held-out pairs: implicit rewards, log-prob shifts, divergence, sample answers."""
