//! model-prep's library from outside: what it makes of the demo model, whole, changed and broken.

mod adapters;
mod added;
mod autoencoders;
mod changed;
mod conversion;
mod errors;
mod planning;
mod recognition;
mod schedulers;
mod single_file;
mod smoothing;
mod torch_file;
mod upscalers;
mod wrappings;
mod xl;
