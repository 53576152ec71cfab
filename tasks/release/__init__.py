"""The clinical channel: which model is released, who approved it, and what it was compared with."""
