//! Sizes beyond which a description is a mistake, or a lie: memory must not follow it.

/// Longest context and window, tokens.
pub(crate) const MAX_CONTEXT: u32 = 1 << 27;
/// Most layers.
pub(crate) const MAX_LAYERS: u32 = 1 << 10;
/// Widest residual stream.
pub(crate) const MAX_HIDDEN: u32 = 1 << 16;
/// Widest feed-forward block.
pub(crate) const MAX_FEED_FORWARD: u32 = 1 << 20;
/// Most heads of a layer.
pub(crate) const MAX_HEADS: u32 = 1 << 10;
/// Widest head.
pub(crate) const MAX_HEAD_DIM: u32 = 1 << 10;
/// Most tokens of a vocabulary.
pub(crate) const MAX_VOCAB: usize = 1 << 22;
/// A layer has at least this many tensors; bounds the layers of a file by what is in it.
pub(crate) const LEAST_LAYER_TENSORS: usize = 9;
