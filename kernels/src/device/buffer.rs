//! Memory of a device.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::{Device, DeviceError, Driver};

/// Numbers that are nothing but their bytes, the same on host and device, and valid whatever these are.
///
/// # Safety
/// No padding, no invalid bit patterns, no pointers.
pub unsafe trait Plain: Copy + Default + Send + Sync + 'static {}

// SAFETY: integers and floats of a fixed width.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}

/// The bytes of `values`.
fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding, so every byte is initialised; a `u8` needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of `values`, to be written.
fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as `bytes_of`, and any bytes make a valid `Plain`.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Numbers in a device's memory, freed when dropped. None of them take none: their address is 0.
pub struct DeviceVec<T> {
    device: Device,
    address: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> DeviceVec<T> {
    /// Room for `len` numbers, of which nothing is known.
    pub fn new(device: &Device, len: usize) -> Result<Self, DeviceError> {
        let wanted = len.saturating_mul(size_of::<T>());
        if wanted > isize::MAX as usize {
            return Err(DeviceError::OutOfMemory { wanted });
        }
        let address = match wanted {
            0 => 0,
            _ => device.driver().allocate(wanted)?,
        };
        Ok(Self { device: device.clone(), address, len, element: PhantomData })
    }

    /// `len` numbers whose bytes are 0.
    pub fn zeroed(device: &Device, len: usize) -> Result<Self, DeviceError> {
        let made = Self::new(device, len)?;
        made.as_slice().fill(0)?;
        Ok(made)
    }

    /// A copy of `values`.
    pub fn from_slice(device: &Device, values: &[T]) -> Result<Self, DeviceError> {
        let made = Self::new(device, values.len())?;
        made.as_slice().upload(values)?;
        Ok(made)
    }

    /// Makes room for `len` numbers where there is less; what was there is lost then. Room grows in powers of two, for it is
    /// made anew seldom: giving memory back waits for the device, and beside a recording it is kept.
    pub fn make_room(&mut self, len: usize) -> Result<(), DeviceError> {
        if len > self.len {
            let device = self.device.clone();
            // The old goes first: both need not fit.
            *self = Self::new(&device, 0)?;
            *self = Self::new(&device, len.checked_next_power_of_two().unwrap_or(len))?;
        }
        Ok(())
    }

    /// All of it.
    pub fn as_slice(&self) -> DeviceSlice<'_, T> {
        DeviceSlice {
            driver: self.device.driver(),
            address: self.address,
            len: self.len,
            element: PhantomData,
        }
    }

    /// The numbers at `range`.
    ///
    /// # Panics
    /// It lies outside.
    pub fn slice(&self, range: Range<usize>) -> DeviceSlice<'_, T> {
        self.as_slice().slice(range)
    }
}

impl<T> DeviceVec<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the device's memory.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T> Drop for DeviceVec<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `new` with this many bytes, and dropped once.
            unsafe { self.device.free(self.address, self.bytes()) };
        }
    }
}

impl<T> fmt::Debug for DeviceVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceVec({:#x}, {})", self.address, self.len)
    }
}

/// A stretch of a [`DeviceVec`].
pub struct DeviceSlice<'a, T> {
    driver: &'a Arc<dyn Driver>,
    address: u64,
    len: usize,
    element: PhantomData<&'a T>,
}

impl<T> Clone for DeviceSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceSlice<'_, T> {}

impl<T> fmt::Debug for DeviceSlice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceSlice({:#x}, {})", self.address, self.len)
    }
}

impl<'a, T> DeviceSlice<'a, T> {
    /// Where it lies in the device's memory.
    pub fn address(self) -> u64 {
        self.address
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The numbers at `range`.
    ///
    /// # Panics
    /// It lies outside.
    #[must_use]
    pub fn slice(self, range: Range<usize>) -> DeviceSlice<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        let address = self.address + (range.start * size_of::<T>()) as u64;
        DeviceSlice { address, len: range.len(), ..self }
    }

    /// The first `len`.
    ///
    /// # Panics
    /// There are fewer.
    #[must_use]
    pub fn first(self, len: usize) -> DeviceSlice<'a, T> {
        self.slice(0..len)
    }
}

impl<'a, T: Plain> DeviceSlice<'a, T> {
    /// The same bytes as numbers of another kind, of the same size.
    ///
    /// # Panics
    /// The sizes differ.
    #[must_use]
    pub fn cast<U: Plain>(self) -> DeviceSlice<'a, U> {
        assert_eq!(size_of::<T>(), size_of::<U>(), "numbers of different sizes");
        let Self { driver, address, len, .. } = self;
        DeviceSlice { driver, address, len, element: PhantomData }
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> DeviceSlice<'a, u8> {
        let Self { driver, address, len, .. } = self;
        DeviceSlice { driver, address, len: len * size_of::<T>(), element: PhantomData }
    }
}

impl<T: Plain> DeviceSlice<'_, T> {
    /// Copies `values` here. They may change as soon as this returns.
    pub fn upload(self, values: &[T]) -> Result<(), DeviceError> {
        self.expect_len(values.len(), "an upload")?;
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the slice lies within a living allocation and has the same length.
        unsafe { self.driver.upload(self.address, bytes_of(values)) }
    }

    /// Begins to copy this to the host.
    pub fn download(self) -> Result<Download<T>, DeviceError> {
        let bytes = self.len * size_of::<T>();
        let ticket = match bytes {
            0 => None,
            // SAFETY: the slice lies within a living allocation.
            _ => Some(unsafe { self.driver.download(self.address, bytes) }?),
        };
        let driver = Arc::clone(self.driver);
        Ok(Download { driver, ticket, len: self.len, element: PhantomData })
    }

    /// A copy of this on the host, waited for.
    pub fn to_vec(self) -> Result<Vec<T>, DeviceError> {
        self.download()?.wait()
    }

    /// Copies this over `to`, of the same length, which does not overlap.
    pub fn copy_to(self, to: DeviceSlice<'_, T>) -> Result<(), DeviceError> {
        to.expect_len(self.len, "a copy")?;
        let bytes = (self.len * size_of::<T>()) as u64;
        if bytes == 0 {
            return Ok(());
        }
        if self.address < to.address + bytes && to.address < self.address + bytes {
            return Err(DeviceError::Shape("a copy overlaps its source".to_owned()));
        }
        // SAFETY: both lie within living allocations, apart from each other.
        unsafe { self.driver.copy(to.address, self.address, bytes as usize) }
    }

    /// Sets every byte to `value`.
    pub fn fill(self, value: u8) -> Result<(), DeviceError> {
        if self.len == 0 {
            return Ok(());
        }
        // SAFETY: the slice lies within a living allocation.
        unsafe { self.driver.fill(self.address, value, self.len * size_of::<T>()) }
    }
}

impl<T> DeviceSlice<'_, T> {
    /// Refuses another length than `len`.
    pub(crate) fn expect_len(self, len: usize, what: &str) -> Result<(), DeviceError> {
        if self.len == len {
            return Ok(());
        }
        Err(DeviceError::Shape(format!("{what} of {len} numbers, where {} lie", self.len)))
    }

    /// Refuses fewer than `len`.
    pub(crate) fn expect_room(self, len: usize, what: &str) -> Result<(), DeviceError> {
        if self.len >= len {
            return Ok(());
        }
        Err(DeviceError::Shape(format!("{what} takes {len} numbers, where {} lie", self.len)))
    }
}

/// A copy on its way to the host.
#[derive(Debug)]
#[must_use = "a download is waited for"]
pub struct Download<T> {
    driver: Arc<dyn Driver>,
    ticket: Option<u64>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Download<T> {
    /// Waits for it, and for all that was queued before it.
    pub fn wait(mut self) -> Result<Vec<T>, DeviceError> {
        let mut values = vec![T::default(); self.len];
        if let Some(ticket) = self.ticket.take() {
            self.driver.fetch(ticket, bytes_of_mut(&mut values))?;
        }
        Ok(values)
    }
}

impl<T> Drop for Download<T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.driver.forget(ticket);
        }
    }
}
