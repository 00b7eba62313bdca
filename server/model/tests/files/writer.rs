//! Writes GGUF files, sound ones and ones that lie.

/// What a file says, with room for lies: every count and length can be overridden.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) pair_count: Option<u64>,
    pub(crate) tensor_count: Option<u64>,
    /// What data is aligned to; `general.alignment` is a pair like any other.
    pub(crate) alignment: usize,
    pub(crate) pairs: Vec<(String, Vec<u8>)>,
    pub(crate) tensors: Vec<Entry>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) name_len: Option<u64>,
    pub(crate) dims: Vec<u64>,
    pub(crate) dim_count: Option<u32>,
    pub(crate) code: u32,
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            pair_count: None,
            tensor_count: None,
            alignment: 32,
            pairs: Vec::new(),
            tensors: Vec::new(),
        }
    }
}

/// Codes of value types.
pub(crate) mod code {
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The payload of an array that says it has `count` elements of type `kind`.
pub(crate) fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(elements);
    bytes
}

impl Writer {
    /// A pair of any type.
    pub(crate) fn pair(mut self, key: &str, kind: u32, payload: &[u8]) -> Self {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend_from_slice(payload);
        self.pairs.push((key.to_owned(), value));
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.pair(key, code::U32, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.pair(key, code::F32, &value.to_le_bytes())
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.pair(key, code::BOOL, &[value.into()])
    }

    pub(crate) fn str(self, key: &str, value: &str) -> Self {
        self.pair(key, code::STRING, &text(value))
    }

    pub(crate) fn strs(self, key: &str, values: &[&str]) -> Self {
        let elements = values.iter().flat_map(|value| text(value)).collect::<Vec<_>>();
        self.pair(key, code::ARRAY, &array(code::STRING, values.len() as u64, &elements))
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        let elements = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        self.pair(key, code::ARRAY, &array(code::F32, values.len() as u64, &elements))
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        let elements = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        self.pair(key, code::ARRAY, &array(code::I32, values.len() as u64, &elements))
    }

    /// Drops the pair called `key`, which must be there.
    pub(crate) fn without(mut self, key: &str) -> Self {
        let at = self.pairs.iter().position(|pair| pair.0 == key).unwrap();
        self.pairs.remove(at);
        self
    }

    /// A tensor; `dims` are innermost first.
    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], code: u32, data: Vec<u8>) -> Self {
        self.tensors.push(Entry {
            name: name.to_owned(),
            name_len: None,
            dims: dims.to_vec(),
            dim_count: None,
            code,
            offset: None,
            data,
        });
        self
    }

    /// A tensor of F32, of the shape and values given.
    pub(crate) fn floats(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dims, 0, data)
    }

    /// Changes the tensor called `name`, which must be there.
    pub(crate) fn change(mut self, name: &str, change: impl FnOnce(&mut Entry)) -> Self {
        change(self.tensors.iter_mut().find(|entry| entry.name == name).unwrap());
        self
    }

    /// Drops the tensor called `name`, which must be there.
    pub(crate) fn without_tensor(mut self, name: &str) -> Self {
        let at = self.tensors.iter().position(|entry| entry.name == name).unwrap();
        self.tensors.remove(at);
        self
    }

    /// The file. Nothing follows the last tensor's data.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend_from_slice(&self.version.to_le_bytes());
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        bytes.extend_from_slice(&tensors.to_le_bytes());
        let pairs = self.pair_count.unwrap_or(self.pairs.len() as u64);
        bytes.extend_from_slice(&pairs.to_le_bytes());
        for (key, value) in &self.pairs {
            bytes.extend_from_slice(&text(key));
            bytes.extend_from_slice(value);
        }
        let mut data = Vec::<u8>::new();
        for entry in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            let len = entry.name_len.unwrap_or(entry.name.len() as u64);
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(entry.name.as_bytes());
            let dims = entry.dim_count.unwrap_or(entry.dims.len() as u32);
            bytes.extend_from_slice(&dims.to_le_bytes());
            for dim in &entry.dims {
                bytes.extend_from_slice(&dim.to_le_bytes());
            }
            bytes.extend_from_slice(&entry.code.to_le_bytes());
            let offset = entry.offset.unwrap_or(data.len() as u64);
            bytes.extend_from_slice(&offset.to_le_bytes());
            data.extend_from_slice(&entry.data);
        }
        if !self.tensors.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        }
        bytes.extend_from_slice(&data);
        bytes
    }
}
