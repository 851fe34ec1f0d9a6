//! Products and attention allocate nothing once a thread has its scratch memory: no task, and so no tile, does.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;

use diffused_kernels::pack::{Format, Layout};
use diffused_kernels::{
    ActivationFn, AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, InputRows, Level, LinearCall,
    Panels, Strip,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator, and a counter that needs no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, memory) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of the second run, on one thread: the first makes its scratch memory.
fn second(mut run: impl FnMut() + Send) -> usize {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread pool");
    pool.install(|| {
        run();
        let before = ALLOCATIONS.get();
        run();
        ALLOCATIONS.get() - before
    })
}

#[test]
fn nothing_is_allocated_the_second_time() {
    let level = Level::current();
    if level == Level::Scalar {
        return eprintln!("the scalar level is the specification: it may allocate");
    }
    let (k, features) = (64, 48);
    let (q, scale) = (vec![1; 900 * k], vec![1.0; 900]);
    let x = InputRows::Int8 { q: &q, scale: &scale };
    let mut out = vec![0.0; 900 * features];

    let layout = Layout { format: Format::Int8, k, taps: 1 };
    let bytes = vec![1; 6 * layout.panel_bytes()];
    let panels = Panels { layout, blocks: &[&bytes], first: 0 };
    let epilogue = Epilogue { activation: ActivationFn::Geglu, ..Epilogue::NONE };
    let call = LinearCall { x, panels, features, epilogue };
    assert_eq!(second(|| level.linear(&call, &mut out)), 0, "linear");

    let layout = Layout { format: Format::Int8, k, taps: 9 };
    let bytes = vec![1; 3 * layout.panel_bytes()];
    let panels = Panels { layout, blocks: &[&bytes], first: 0 };
    let shape = ConvShape {
        batch: 1,
        height: 30,
        width: 30,
        kernel: 3,
        stride: 1,
        pad_end_only: false,
        enlarged: Enlarged::No,
    };
    let call = ConvCall { x, shape, strip: Strip::whole(&shape), panels, features, epilogue: Epilogue::NONE };
    assert_eq!(second(|| level.conv2d(&call, &mut out)), 0, "convolution");

    let shape = AttentionShape { batch: 1, heads: 2, head_dim: 24, queries: 900, keys: 300, causal: false };
    let (k, v) = (vec![0.5; 300 * 48], vec![0.25; 300 * 48]);
    let call = AttentionCall { k: &k, v: &v, shape };
    assert_eq!(second(|| level.attention(&call, &mut out)), 0, "attention");
    assert_eq!(second(|| level.attention_int8(&call, &mut out)), 0, "int8 attention");
    assert_eq!(second(|| level.cross_attention_int8(&call, &mut out)), 0, "int8 cross-attention");
}
