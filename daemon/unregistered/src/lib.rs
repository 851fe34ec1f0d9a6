//! In place of the crate `inventory`: nothing is registered, and every list is empty.
//!
//! tract registers model transforms, matrix kernels and settings by functions that run before `main`. A linker keeps those
//! and all that they lead to: a second file format with its parser and writer, Fourier transforms, matrix kernels for each
//! CPU. Nothing here asks for one of them, since what a network computes is done by operators of ours.

#![no_std]

use core::ops::Deref;

/// What may be registered.
pub trait Collect: Sync + Sized + 'static {}

/// Makes a type one that may be registered.
#[macro_export]
macro_rules! collect {
    ($type:ty) => {
        impl $crate::Collect for $type {}
    };
}

/// Leaves out what it is given.
#[macro_export]
macro_rules! submit {
    ($($value:tt)*) => {};
}

#[doc(hidden)]
pub use list::*;

mod list {
    use core::marker::PhantomData;

    /// Every registered value of a type: there are none. Written `iter::<T>` and `iter::<T>()`, for which its one variant has
    /// its name.
    #[allow(non_camel_case_types, reason = "as the crate that it stands for has it")]
    pub enum iter<T> {
        /// The list.
        iter,
        /// Bears the type; nobody can make it.
        __Phantom(PhantomData<T>, core::convert::Infallible),
    }

    pub use crate::variant::*;
}

/// By a glob, so that the enum hides the variant where a type is meant.
mod variant {
    pub use crate::list::iter::iter;
}

impl<T: Collect> Deref for iter<T> {
    type Target = fn() -> core::iter::Empty<&'static T>;

    fn deref(&self) -> &Self::Target {
        &(core::iter::empty as fn() -> core::iter::Empty<&'static T>)
    }
}

impl<T: Collect> IntoIterator for iter<T> {
    type Item = &'static T;
    type IntoIter = core::iter::Empty<&'static T>;

    fn into_iter(self) -> Self::IntoIter {
        core::iter::empty()
    }
}
