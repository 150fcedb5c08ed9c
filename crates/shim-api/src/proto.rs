//! Messages, clients and server traits, as `build.rs` generates them from `proto/`.

macro_rules! generated {
    ($($file:ident)*) => {
        $(
            #[allow(
                clippy::all,
                clippy::cast_possible_truncation,
                clippy::unwrap_used,
                missing_docs,
                non_camel_case_types,
                non_snake_case,
                non_upper_case_globals,
                unused
            )]
            pub mod $file {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($file), ".rs"));
            }
        )*
    };
}

generated! { mount process task task_ttrpc supervisor supervisor_ttrpc cgroups_v1 cgroups_v2 }
