//! Boiling values down: percentiles by nearest rank, so that every number in the table is one that
//! was measured.

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    pub count: usize,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
    /// Between these two the true median lies, 95 times of 100; whatever the distribution is.
    pub median_between: (f64, f64),
}

impl Summary {
    /// None when there are no values.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |percent| percentile(&sorted, percent);
        Some(Summary {
            count: sorted.len(),
            p50: at(50)?,
            p95: at(95)?,
            p99: at(99)?,
            max: at(100)?,
            median_between: median_between(&sorted)?,
        })
    }
}

/// The smallest of the sorted values that `percent` of them do not exceed.
pub fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// From the ranks about the middle by 0.98 times the root of the count: the normal approximation
/// to the binomial, widened to whole ranks.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn median_between(sorted: &[f64]) -> Option<(f64, f64)> {
    let reach = (0.98 * (sorted.len() as f64).sqrt()).ceil() as usize;
    let middle = sorted.len() / 2;
    let low = middle.saturating_sub(reach);
    let high = (middle + reach).min(sorted.len().checked_sub(1)?);
    Some((sorted[low], sorted[high]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn up_to(n: u32) -> Vec<f64> {
        (1..=n).map(f64::from).collect()
    }

    #[test]
    fn a_percentile_is_the_value_at_the_nearest_rank() {
        let values = up_to(100);
        assert_eq!(percentile(&values, 50), Some(50.0));
        assert_eq!(percentile(&values, 95), Some(95.0));
        assert_eq!(percentile(&values, 99), Some(99.0));
        assert_eq!(percentile(&values, 100), Some(100.0));
        assert_eq!(percentile(&values, 0), Some(1.0));
    }

    #[test]
    fn few_values_round_up_to_the_worse_one() {
        assert_eq!(percentile(&up_to(3), 50), Some(2.0));
        assert_eq!(percentile(&up_to(4), 50), Some(2.0));
        assert_eq!(percentile(&up_to(30), 95), Some(29.0));
        assert_eq!(percentile(&up_to(30), 99), Some(30.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
    }

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_order_of_the_values_does_not_matter() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Summary::of(&[1.0, 2.0, 3.0]));
    }

    proptest! {
        #[test]
        fn every_number_was_measured_and_they_rise(
            values in prop::collection::vec(0.0..1e6, 1..200),
        ) {
            let s = Summary::of(&values).expect("there are values");
            let (low, high) = s.median_between;
            for number in [s.p50, s.p95, s.p99, s.max, low, high] {
                prop_assert!(values.contains(&number));
            }
            prop_assert!(s.p50 <= s.p95 && s.p95 <= s.p99 && s.p99 <= s.max);
            prop_assert!(low <= s.p50 && s.p50 <= high);
        }
    }
}
