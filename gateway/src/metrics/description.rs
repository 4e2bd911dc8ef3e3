//! How a metric is described: what the lines of `table.rs` are made of.
//!
//! `counters!` takes each counter once (help, name in the report, kind, unit, name for Prometheus, where
//! it is read) and makes of it a field of the report, an entry of the page, and the way to show it.

use metrics::Unit;

use super::room_stats::RoomStats;

/// A counter at one moment, in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// How many there are.
    Count(u64),
    /// How many bytes.
    Bytes(u64),
    /// How long.
    Seconds(f64),
}

impl Reading {
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Bytes(bytes) => bytes as f64,
            Self::Seconds(seconds) => seconds,
        }
    }
}

/// Whether a metric only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    Total,
    Level,
}

/// A metric without labels.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    /// For Prometheus and for the field of the report.
    pub(super) help: &'static str,
    pub(super) kind: MetricKind,
    /// `None`: there is no such thing in this mount.
    pub(super) read: fn(&RoomStats) -> Option<Reading>,
}

/// The labels of one value of a metric.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A metric with labels.
pub(super) struct LabelledSeries {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricKind,
    pub(super) read: fn(&RoomStats) -> Vec<(Labels, u64)>,
}

/// The type of a field of the report in this unit.
macro_rules! field_type {
    (Count) => {
        u64
    };
    (Bytes) => {
        u64
    };
    (Seconds) => {
        f64
    };
}
pub(super) use field_type;

/// Makes one [`Series`].
macro_rules! series {
    ($($help:literal)+, $kind:ident, $unit:ident, $name:literal, $now:ident => $value:expr) => {
        $crate::metrics::description::Series {
            name: $name,
            unit: metrics::Unit::$unit,
            help: concat!($($help),+),
            kind: $crate::metrics::description::MetricKind::$kind,
            read: |$now| Some($crate::metrics::description::Reading::$unit($value)),
        }
    };
}
pub(super) use series;

/// See the module. Each `section` becomes a struct of the report; what stands under `page` is for
/// Prometheus alone.
macro_rules! counters {
    (
        $(
            $(#[$section_doc:meta])*
            section $report:ident {
                $(words { $( $(#[$word_doc:meta])* $word:ident = $word_now:ident => $word_value:expr; )* })?
                $(
                    $(#[doc = $help:literal])+
                    $field:ident: $kind:ident $unit:ident $name:literal = $now:ident => $value:expr;
                )*
            }
        )*
        page {
            $(
                $(#[doc = $page_help:literal])+
                $page_kind:ident $page_unit:ident $page_name:literal = $page_now:ident => $page_value:expr;
            )*
        }
    ) => {
        $(
            $(#[$section_doc])*
            #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
            #[serde(default)]
            pub struct $report {
                $($( $(#[$word_doc])* pub $word: String, )*)?
                $( $(#[doc = $help])+ pub $field: field_type!($unit), )*
            }

            impl $report {
                /// `None` if this mount has no such thing.
                pub(super) fn read(now: &RoomStats) -> Option<Self> {
                    Some(Self {
                        $($( $word: { let $word_now = now; $word_value }, )*)?
                        $( $field: { let $now = now; $value }, )*
                    })
                }

                /// The field of that name in its unit.
                pub(super) fn reading(&self, field: &str) -> Option<Reading> {
                    $(
                        if field == stringify!($field) {
                            return Some(Reading::$unit(self.$field));
                        }
                    )*
                    None
                }
            }
        )*

        /// Every metric without labels.
        pub(super) const SERIES: &[Series] = &[
            $($( series!($($help)+, $kind, $unit, $name, $now => $value), )*)*
            $( series!($($page_help)+, $page_kind, $page_unit, $page_name, $page_now => $page_value), )*
        ];
    };
}
pub(super) use counters;
