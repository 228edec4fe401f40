"""The window law: which events a window read at a time holds. Every path asks here."""

from headwater.windows.law import LIFETIME_START, effective_time, floor_to, hop_of, window_start

__all__ = ["LIFETIME_START", "effective_time", "floor_to", "hop_of", "window_start"]
