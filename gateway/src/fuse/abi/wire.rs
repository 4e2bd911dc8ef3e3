//! The macro that draws structs of the wire.

/// A struct of the wire: its name here, its size, its fields and where they begin.
#[cfg(test)]
pub(crate) type WireLayout = (&'static str, usize, &'static [(&'static str, usize)]);

/// Makes plain structs of the wire: derives, layout and an assertion of the size; for tests a table of
/// them, which is held against the header itself.
macro_rules! wire {
    ($($(#[$meta:meta])* $name:ident [$size:literal] { $($field:ident: $type:ty),* $(,)? })*) => {
        #[cfg(test)]
        pub(super) const LAYOUTS: &[crate::fuse::abi::wire::WireLayout] = &[$((
            stringify!($name),
            size_of::<$name>(),
            &[$((stringify!($field), std::mem::offset_of!($name, $field))),*],
        )),*];
        $(
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
        )]
        #[repr(C)]
        #[allow(missing_docs, reason = "the fields are those of <linux/fuse.h>")]
        pub struct $name { $(pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
        )*
    };
}
pub(super) use wire;
