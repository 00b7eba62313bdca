//! A card as a [`Driver`]: one context, one stream, all work in order.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::cache::Cache;
use super::card::Card;
use super::downloads::Downloads;
use super::handles::{Context, Event, Graph, Stream};
use super::library::driver::{
    CUgraph, CUstreamCaptureMode, cuGraphDestroy, cuGraphInstantiateWithFlags, cuGraphLaunch,
    cuGraphUpload, cuMemAlloc_v2, cuMemFree_v2, cuMemGetInfo_v2, cuMemcpyDtoDAsync_v2,
    cuMemsetD8Async, cuStreamBeginCapture_v2, cuStreamEndCapture,
};
use super::modules::Modules;
use super::product::Products;
use super::staging::Staging;
use super::status::{check, check_room};
use crate::device::{Argument, DeviceError, DeviceLimits, Driver, GraphId, Launch, Mark, Product};

/// Least version of what a card can compute: `cp.async`, `ldmatrix` and bfloat16 in `mma.sync`.
const OLDEST: (u32, u32) = (8, 0);

/// What comes and goes.
#[derive(Debug, Default)]
struct State {
    downloads: Downloads,
    marks: HashMap<Mark, Event>,
    /// Marks that were used.
    spare: Vec<Event>,
    graphs: HashMap<GraphId, Graph>,
}

/// See the [module](self).
///
/// An error of the kind that ends a context (a kernel that left its memory, a card that fell off the bus) loses the device: it
/// and all calls after it fail with [`DeviceError::Lost`]. Another device may be opened once everything that belongs to
/// this one, its memory above all, was dropped.
pub(super) struct CudaDevice {
    limits: DeviceLimits,
    lost: OnceLock<String>,
    next: AtomicU64,
    recording: AtomicBool,
    // Dropped in this order: the context, in which all else lives, last.
    products: Option<Mutex<Products>>,
    staging: Mutex<Staging>,
    state: Mutex<State>,
    modules: Modules,
    stream: Stream,
    context: Context,
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice")
            .field("limits", &self.limits)
            .field("lost", &self.lost.get())
            .finish_non_exhaustive()
    }
}

impl CudaDevice {
    pub(super) fn open(card: &Card, cache: Option<Cache>) -> Result<Self, DeviceError> {
        let limits = card.limits.clone();
        if limits.capability < OLDEST {
            let ((major, minor), (needs, _)) = (limits.capability, OLDEST);
            let name = &limits.name;
            let why = format!("{name} computes as of {major}.{minor}, kernels need {needs}.0");
            return Err(DeviceError::Missing(why));
        }
        let context = Context::retain(card.device)?;
        context.make_current()?;
        let stream = Stream::new()?;
        let modules = Modules::load(&limits, cache)?;
        let products = match Products::new() {
            Ok(products) => Some(Mutex::new(products)),
            // Kernels of our own do its work.
            Err(DeviceError::Missing(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            limits,
            lost: OnceLock::new(),
            next: AtomicU64::new(1),
            recording: AtomicBool::new(false),
            products,
            staging: Mutex::new(Staging::new()?),
            state: Mutex::default(),
            modules,
            stream,
            context,
        })
    }

    /// Does `work` in the card's context, unless the device was lost, and remembers if it is afterwards.
    fn within<T>(&self, work: impl FnOnce() -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        if let Some(why) = self.lost.get() {
            return Err(DeviceError::Lost(why.clone()));
        }
        let result = self.context.make_current().and_then(|()| work());
        if let Err(DeviceError::Lost(why)) = &result {
            // The first reason stays.
            let _ = self.lost.set(why.clone());
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Acquire)
    }

    /// Refuses what would have to wait in the middle of a recording.
    fn not_recording(&self, what: &str) -> Result<(), DeviceError> {
        match self.is_recording() {
            true => Err(DeviceError::Shape(format!("{what} inside a recording"))),
            false => Ok(()),
        }
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // What is still queued uses what is about to go. A lost device has nothing queued, and refuses.
        if self.context.make_current().is_ok() {
            let _ = self.stream.synchronize();
        }
    }
}

impl Driver for CudaDevice {
    fn limits(&self) -> &DeviceLimits {
        &self.limits
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.within(|| {
            let (mut free, mut all) = (0, 0);
            // SAFETY: two numbers are written.
            let status = unsafe { cuMemGetInfo_v2(&raw mut free, &raw mut all) };
            check(status, "asking for its memory")?;
            Ok(free)
        })
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        self.within(|| {
            let mut address = 0;
            // SAFETY: a number is written.
            check_room(unsafe { cuMemAlloc_v2(&raw mut address, bytes) }, bytes, "allocating")?;
            Ok(address)
        })
    }

    unsafe fn free(&self, address: u64, _: usize) {
        // On a device that was lost, memory goes with the context.
        let _ = self.within(|| {
            if !self.is_recording() {
                self.stream.synchronize()?;
            }
            // SAFETY: the caller's; nothing queued uses it.
            check(unsafe { cuMemFree_v2(address) }, "giving memory back")
        });
    }

    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError> {
        self.within(|| {
            self.not_recording("an upload")?;
            let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the caller's.
            unsafe { staging.upload(&self.stream, to, from) }
        })
    }

    unsafe fn download(&self, from: u64, bytes: usize) -> Result<u64, DeviceError> {
        self.within(|| {
            self.not_recording("a download")?;
            let ticket = self.number();
            // SAFETY: the caller's.
            unsafe { self.state().downloads.begin(&self.stream, ticket, from, bytes) }?;
            Ok(ticket)
        })
    }

    fn fetch(&self, ticket: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        self.within(|| {
            let waiting = self.state().downloads.take(ticket);
            let missing = || DeviceError::Shape("there is no such download".to_owned());
            let waiting = waiting.ok_or_else(missing)?;
            // Others go on meanwhile.
            let fetched = waiting.fetch(to);
            self.state().downloads.give_back(waiting);
            fetched
        })
    }

    fn forget(&self, ticket: u64) {
        let _ = self.within(|| {
            let mut state = self.state();
            if let Some(waiting) = state.downloads.take(ticket) {
                state.downloads.give_back(waiting);
            }
            Ok(())
        });
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.within(|| {
            // SAFETY: the caller's.
            let status = unsafe { cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream.0) };
            check(status, "copying within it")
        })
    }

    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.within(|| {
            // SAFETY: the caller's.
            check(unsafe { cuMemsetD8Async(to, value, bytes, self.stream.0) }, "filling memory")
        })
    }

    unsafe fn launch(
        &self,
        kernel: &'static str,
        launch: &Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        self.within(|| unsafe { self.modules.launch(&self.stream, kernel, launch, arguments) })
    }

    unsafe fn product(&self, product: &Product) -> Result<bool, DeviceError> {
        let Some(products) = &self.products else { return Ok(false) };
        self.within(|| {
            let mut products = products.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the caller's.
            unsafe { products.multiply(&self.stream, self.is_recording(), product) }
        })
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.within(|| {
            self.not_recording("waiting")?;
            self.stream.synchronize()
        })
    }

    fn begin_recording(&self) -> Result<(), DeviceError> {
        self.within(|| {
            if self.recording.swap(true, Ordering::AcqRel) {
                return Err(DeviceError::Shape("a recording within a recording".to_owned()));
            }
            // Of this stream alone: other threads, and other users of the process, are not held up.
            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            // SAFETY: a live stream of which nothing is being recorded.
            let begun = check(
                unsafe { cuStreamBeginCapture_v2(self.stream.0, mode) },
                "beginning a recording",
            );
            if begun.is_err() {
                self.recording.store(false, Ordering::Release);
            }
            begun
        })
    }

    fn end_recording(&self) -> Result<GraphId, DeviceError> {
        self.within(|| {
            if !self.recording.swap(false, Ordering::AcqRel) {
                return Err(DeviceError::Shape("no recording is under way".to_owned()));
            }
            let mut recorded: CUgraph = std::ptr::null_mut();
            // SAFETY: what `begin_recording` began.
            let status = unsafe { cuStreamEndCapture(self.stream.0, &raw mut recorded) };
            check(status, "ending a recording")?;
            let graph = instantiate(recorded);
            // SAFETY: handed out above, and not needed any more.
            unsafe { cuGraphDestroy(recorded) };
            let graph = graph?;
            // SAFETY: both are alive. What the first replay would have done is done here.
            let status = unsafe { cuGraphUpload(graph.0, self.stream.0) };
            check(status, "keeping a recording")?;
            let id = GraphId(self.number());
            self.state().graphs.insert(id, graph);
            Ok(id)
        })
    }

    unsafe fn replay(&self, graph: GraphId) -> Result<(), DeviceError> {
        self.within(|| {
            let state = self.state();
            let missing = || DeviceError::Shape("there is no such recording".to_owned());
            let graph = state.graphs.get(&graph).ok_or_else(missing)?;
            // SAFETY: alive, and used by one at a time; the memory in it is the caller's promise.
            check(unsafe { cuGraphLaunch(graph.0, self.stream.0) }, "replaying a recording")
        })
    }

    fn discard(&self, graph: GraphId) {
        let _ = self.within(|| {
            self.state().graphs.remove(&graph);
            Ok(())
        });
    }

    fn mark(&self) -> Result<Mark, DeviceError> {
        self.within(|| {
            self.not_recording("a mark")?;
            let spare = self.state().spare.pop();
            let event = spare.map_or_else(Event::timed, Ok)?;
            event.record(&self.stream)?;
            let mark = Mark(self.number());
            self.state().marks.insert(mark, event);
            Ok(mark)
        })
    }

    fn seconds(&self, from: Mark, to: Mark) -> Result<f64, DeviceError> {
        self.within(|| {
            let (from, to) = {
                let mut state = self.state();
                (state.marks.remove(&from), state.marks.remove(&to))
            };
            let (Some(from), Some(to)) = (from, to) else {
                return Err(DeviceError::Shape("there is no such mark".to_owned()));
            };
            to.wait()?;
            let seconds = from.seconds_until(&to)?;
            self.state().spare.extend([from, to]);
            Ok(seconds)
        })
    }
}

fn instantiate(recorded: CUgraph) -> Result<Graph, DeviceError> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: a live graph; no flags.
    let status = unsafe { cuGraphInstantiateWithFlags(&raw mut raw, recorded, 0) };
    check(status, "making a recording ready")?;
    Ok(Graph(raw))
}
