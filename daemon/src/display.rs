//! What a display shows of an image: its size and shape, its few colours, and the bytes that its driver takes. Nothing here
//! knows of jobs or messages: a picture and a description of what is wanted become a file.

pub mod dither;
mod gamut;
mod inks;
mod light;
pub mod packing;
pub mod palette;
pub mod panels;
pub mod render;
mod resample;
pub mod size;
pub mod spec;
mod turn;
