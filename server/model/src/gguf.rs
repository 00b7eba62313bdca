//! GGUF: the container. A reader that trusts nothing.
