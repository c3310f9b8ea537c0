//! Logistic regression on sparse rows, its weights pulled to a prior.
//!
//! Dual coordinate ascent (Yu, Huang and Lin 2011): a pass over the rows costs one product and one
//! update of each, and rows come in an order that is mixed and always the same.

/// Passes over all rows, where it does not settle earlier.
const PASSES: usize = 300;
/// A pass that moves no dual variable further than this part of its range is the last.
const SETTLED: f64 = 1e-3;
const NEWTON_STEPS: usize = 12;

/// One row: where it is not zero, and what stands there.
pub struct Row {
    /// Each inside the weights.
    pub places: Vec<u32>,
    /// As many.
    pub values: Vec<f64>,
    /// Which of the two it is.
    pub good: bool,
}

/// Why rows cannot be fitted.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// This row is not as `Row` says, or not finite.
    Row(usize),
    /// It must be above 0.
    Cost,
}

/// The weights; `prior` has as many, and is what they are where the rows say nothing. `cost` is how
/// much a row counts against the pull to it.
pub fn fit(rows: &[Row], prior: &[f64], cost: f64) -> Result<Vec<f64>, Unfit> {
    if !(cost.is_finite() && cost > 0.0) {
        return Err(Unfit::Cost);
    }
    if let Some(bad) = rows.iter().position(|row| !is_sound(row, prior.len())) {
        return Err(Unfit::Row(bad));
    }
    let mut weights = prior.to_vec();
    let norms: Vec<f64> = rows
        .iter()
        .map(|row| row.values.iter().map(|value| value * value).sum())
        .collect();
    let mut duals = vec![cost * 0.1; rows.len()];
    for (row, dual) in rows.iter().zip(&duals) {
        add(&mut weights, row, dual * sign(row));
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut chance: u64 = 1;
    for _ in 0..PASSES {
        shuffle(&mut order, &mut chance);
        let mut furthest: f64 = 0.0;
        for &number in &order {
            let row = &rows[number];
            let margin = sign(row) * product(&weights, row);
            let step = best(duals[number], margin, norms[number], cost) - duals[number];
            duals[number] += step;
            add(&mut weights, row, step * sign(row));
            furthest = furthest.max(step.abs());
        }
        if furthest < SETTLED * cost {
            break;
        }
    }
    Ok(weights)
}

fn is_sound(row: &Row, size: usize) -> bool {
    row.places.len() == row.values.len()
        && row.places.iter().all(|&place| (place as usize) < size)
        && row.values.iter().all(|value| value.is_finite())
}

fn sign(row: &Row) -> f64 {
    if row.good {
        1.0
    } else {
        -1.0
    }
}

fn product(weights: &[f64], row: &Row) -> f64 {
    let pairs = row.places.iter().zip(&row.values);
    pairs
        .map(|(&place, value)| weights[place as usize] * value)
        .sum()
}

fn add(weights: &mut [f64], row: &Row, amount: f64) {
    for (&place, value) in row.places.iter().zip(&row.values) {
        weights[place as usize] += amount * value;
    }
}

/// The best dual variable in (0, cost) while the others are held: Newton, kept inside by halving.
fn best(dual: f64, margin: f64, norm: f64, cost: f64) -> f64 {
    let (mut low, mut high) = (0.0, cost);
    let mut now = dual.clamp(1e-9 * cost, (1.0 - 1e-9) * cost);
    for _ in 0..NEWTON_STEPS {
        let slope = margin + norm * (now - dual) + (now / (cost - now)).ln();
        if slope > 0.0 {
            high = now;
        } else {
            low = now;
        }
        let moved = now - slope / (norm + cost / (now * (cost - now)));
        let inside = low < moved && moved < high;
        let next = if inside {
            moved
        } else {
            f64::midpoint(low, high)
        };
        let done = (next - now).abs() < 1e-6 * cost;
        now = next;
        if done {
            break;
        }
    }
    now
}

/// Fisher and Yates, by a multiplicative generator.
fn shuffle(order: &mut [usize], chance: &mut u64) {
    for last in (1..order.len()).rev() {
        *chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let under = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        let other = usize::try_from((*chance >> 33) % under).unwrap_or(last);
        order.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::{fit, Row, Unfit};

    fn row(values: &[f64], good: bool) -> Row {
        Row {
            places: (0..).take(values.len()).collect(),
            values: values.to_vec(),
            good,
        }
    }

    fn gradient(rows: &[Row], weights: &[f64], prior: &[f64], cost: f64) -> f64 {
        let mut sums: Vec<f64> = weights.iter().zip(prior).map(|(w, p)| w - p).collect();
        for row in rows {
            let label = if row.good { 1.0 } else { 0.0 };
            let logit: f64 = row.values.iter().zip(weights).map(|(v, w)| v * w).sum();
            let error = 1.0 / (1.0 + (-logit).exp()) - label;
            for (sum, value) in sums.iter_mut().zip(&row.values) {
                *sum += cost * error * value;
            }
        }
        sums.iter().fold(0.0, |most, sum| most.max(sum.abs()))
    }

    #[test]
    fn the_weights_are_at_the_optimum() {
        let rows: Vec<Row> = (0..200)
            .map(|n| {
                let x = f64::from(n % 17) / 8.0 - 1.0;
                let z = f64::from(n % 5) - 2.0;
                row(&[1.0, x, z], (x + 0.3 * z + f64::from(n % 3) - 1.0) > 0.0)
            })
            .collect();
        for prior in [[0.0; 3], [0.5, -1.0, 2.0]] {
            let weights = fit(&rows, &prior, 0.3).unwrap();
            assert!(gradient(&rows, &weights, &prior, 0.3) < 0.05);
        }
    }

    #[test]
    fn without_rows_there_is_the_prior() {
        assert_eq!(fit(&[], &[1.0, 2.0], 1.0), Ok(vec![1.0, 2.0]));
    }

    #[test]
    fn unsound_rows_are_named() {
        let rows = [row(&[1.0], true), row(&[1.0, f64::NAN], true)];
        assert_eq!(fit(&rows, &[0.0, 0.0], 1.0), Err(Unfit::Row(1)));
        assert_eq!(fit(&rows[..1], &[], 1.0), Err(Unfit::Row(0)));
        assert_eq!(fit(&[], &[], f64::NAN), Err(Unfit::Cost));
    }
}
