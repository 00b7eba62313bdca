//! Vectors in eight bits, and their dot products.

/// Components summed at once: enough for the compiler to fill its registers.
const LANES: usize = 32;
/// Largest component of a quantised question. Its codes are widened before they are multiplied anyway, so that it
/// keeps 12 bits; with [`MAX_DIMENSIONS`](super::MAX_DIMENSIONS) components, sums stay below 2^31.
const QUERY_MAX: f32 = 2047.0;

/// Largest absolute component.
fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0, |most, component| most.max(component.abs()))
}

/// Appends the codes of `vector` and gives the scale they are multiplied by.
pub(super) fn quantise(vector: &[f32], codes: &mut Vec<i8>) -> f32 {
    let scale = largest(vector) / 127.0;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    codes.extend(vector.iter().map(|component| (component * inverse).round() as i8));
    scale
}

/// A question's codes and scale.
pub(super) fn quantise_query(vector: &[f32]) -> (Vec<i16>, f32) {
    let scale = largest(vector) / QUERY_MAX;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    (vector.iter().map(|component| (component * inverse).round() as i16).collect(), scale)
}

/// Dot product of codes of equal number.
pub(super) fn dot(codes: &[i8], query: &[i16]) -> i32 {
    let (heads, queries) = (codes.chunks_exact(LANES), query.chunks_exact(LANES));
    let rest: i32 = heads
        .remainder()
        .iter()
        .zip(queries.remainder())
        .map(|(&code, &query)| i32::from(code) * i32::from(query))
        .sum();
    let sum: i32 = heads
        .zip(queries)
        .map(|(codes, queries)| {
            // A loop of known length with a sum of its own: the compiler makes multiply-and-add instructions of it.
            (0..LANES).map(|at| i32::from(codes[at]) * i32::from(queries[at])).sum::<i32>()
        })
        .sum();
    sum + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_is_that_of_a_plain_loop(
            pairs in prop::collection::vec((any::<i8>(), -2047_i16..=2047), 0..600),
        ) {
            let (codes, query): (Vec<i8>, Vec<i16>) = pairs.into_iter().unzip();
            let plain: i64 =
                codes.iter().zip(&query).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum();
            prop_assert_eq!(i64::from(dot(&codes, &query)), plain);
        }

        #[test]
        fn scaled_codes_are_near_the_real_dot(
            a in prop::collection::vec(-1.0_f32..1.0, 64),
            b in prop::collection::vec(-1.0_f32..1.0, 64),
        ) {
            let mut codes = Vec::new();
            let scale = quantise(&a, &mut codes);
            let (query, query_scale) = quantise_query(&b);
            let near = dot(&codes, &query) as f32 * scale * query_scale;
            let real: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            // Half a step of each of 64 components.
            prop_assert!((near - real).abs() < 64.0 * (0.5 / 127.0 + 0.5 / 2047.0), "{near} {real}");
        }
    }

    #[test]
    fn the_longest_vector_does_not_overflow() {
        let (codes, query) = (vec![-127_i8; super::super::MAX_DIMENSIONS], vec![2047_i16; 8192]);
        assert_eq!(dot(&codes, &query), -127 * 2047 * 8192);
        assert_eq!(quantise(&[0.0; 4], &mut Vec::new()), 0.0);
    }
}
