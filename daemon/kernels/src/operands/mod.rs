//! What the kernels are called with: each call is a value, and checks that its sizes fit each other.
//!
//! The vector levels and their scalar twin both take these, and neither knows the other.

mod attention;
mod conv;
mod matrix;

pub use self::attention::{AttentionCall, AttentionShape};
pub use self::conv::{ConvCall, ConvShape, Enlarged, LinearCall, Strip};
pub use self::matrix::{ActivationFn, Epilogue, InputRows, MOST_TERMS, Panels, Rectifier};
