//! Text to token ids and back, as the model file describes it.

/// A token of an encoded text and the bytes of the text it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpan {
    /// Token id.
    pub id: u32,
    /// First byte of the text.
    pub start: usize,
    /// Past its last byte. Neighbouring tokens of one split character share its range.
    pub end: usize,
}

/// Whether text may spell control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `<|im_end|>` in the text becomes the control token: rendered templates, raw prompts of trusted callers.
    Parse,
    /// Control tokens are never produced: the text is encoded as if it were ordinary.
    Plain,
}

/// The tokenizer of one model. Cheap to share; encoding is thread-safe.
#[derive(Debug)]
pub struct Tokenizer {}

impl Tokenizer {
    /// Token ids of `text`, without BOS or EOS.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> { unimplemented!() }
    /// As [`Self::encode`], with the bytes each token covers.
    pub fn encode_spans(&self, text: &str, special: Special) -> Vec<TokenSpan> { unimplemented!() }
    /// BOS, if the file says prompts begin with it.
    pub fn prompt_bos(&self) -> Option<u32> { unimplemented!() }
    /// BOS, whether or not prompts begin with it.
    pub fn bos(&self) -> Option<u32> { unimplemented!() }
    /// Tokens that end a generation (EOS, end of turn).
    pub fn end_tokens(&self) -> &[u32] { unimplemented!() }
    /// Whether `id` is a control token (not shown to users).
    pub fn is_control(&self, id: u32) -> bool { unimplemented!() }
    /// The bytes `id` stands for in running text: byte tokens are one byte, SPM's U+2581 is a space,
    /// control tokens are empty. Incremental detokenising concatenates these.
    pub fn bytes(&self, id: u32) -> &[u8] { unimplemented!() }
    /// The token as the file spells it.
    pub fn piece(&self, id: u32) -> Option<&str> { unimplemented!() }
    /// The id of the token the file spells `piece`.
    pub fn id(&self, piece: &str) -> Option<u32> { unimplemented!() }
    /// Text of `ids`: concatenated [`Self::bytes`], invalid UTF-8 replaced by U+FFFD; `control` shows control
    /// tokens as the file spells them.
    pub fn decode(&self, ids: &[u32], control: bool) -> String { unimplemented!() }
    /// Number of tokens.
    pub fn vocab(&self) -> usize { unimplemented!() }
}
