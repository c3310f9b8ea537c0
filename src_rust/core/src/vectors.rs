//! Arithmetic on vectors of 32-bit floats, as embedding models give them: little-endian bytes.

use std::fmt;

const FLOAT_BYTES: usize = size_of::<f32>();
/// Most numbers that one vector may have; models in use have 256 to 4,096.
pub const MAX_DIMENSIONS: usize = 16_384;

/// Linear functions of one vector.
pub struct Linear {
    dimensions: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

/// Bytes that do not fit to what they are used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShapeError {
    /// Bytes given.
    pub bytes: usize,
    /// Bytes that would do.
    pub expected: usize,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{} bytes where {} are expected",
            self.bytes, self.expected
        )
    }
}

impl std::error::Error for ShapeError {}

impl Linear {
    /// One function for each number of `bias`; `weights` has theirs one after another.
    ///
    /// # Errors
    /// When `weights` cannot be divided among the functions.
    pub fn new(weights: &[u8], bias: Vec<f32>) -> Result<Self, ShapeError> {
        let row = weights.len() / (FLOAT_BYTES * bias.len()).max(1);
        let dimensions = row.clamp(1, MAX_DIMENSIONS);
        let expected = dimensions * bias.len() * FLOAT_BYTES;
        if bias.is_empty() || weights.len() != expected {
            return Err(ShapeError {
                bytes: weights.len(),
                expected,
            });
        }
        Ok(Self {
            dimensions,
            weights: floats(weights).collect(),
            bias,
        })
    }

    /// Numbers that a vector must have.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The value of each function.
    ///
    /// # Errors
    /// When the vector is of another length.
    pub fn values(&self, vector: &[u8]) -> Result<Vec<f32>, ShapeError> {
        let expected = self.dimensions * FLOAT_BYTES;
        if vector.len() != expected {
            return Err(ShapeError {
                bytes: vector.len(),
                expected,
            });
        }
        let vector: Vec<f32> = floats(vector).collect();
        let rows = self.weights.chunks_exact(self.dimensions);
        Ok(rows
            .zip(&self.bias)
            .map(|(row, bias)| bias + product(row.iter().copied(), vector.iter().copied()))
            .collect())
    }
}

/// The dot product of two vectors: of unit length, the cosine of their angle.
///
/// # Errors
/// When they are not of the same length, or no vectors.
pub fn dot(left: &[u8], right: &[u8]) -> Result<f32, ShapeError> {
    if left.len() != right.len() || left.len() % FLOAT_BYTES != 0 {
        return Err(ShapeError {
            bytes: right.len(),
            expected: left.len() / FLOAT_BYTES * FLOAT_BYTES,
        });
    }
    Ok(product(floats(left), floats(right)))
}

fn product(left: impl Iterator<Item = f32>, right: impl Iterator<Item = f32>) -> f32 {
    left.zip(right).map(|(a, b)| a * b).sum()
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes
        .chunks_exact(FLOAT_BYTES)
        .map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn functions_are_evaluated_row_by_row() {
        let linear = Linear::new(&bytes(&[1.0, 2.0, 3.0, -1.0, 0.0, 0.5]), vec![0.0, 10.0]);
        let linear = linear.expect("it fits");
        assert_eq!(linear.dimensions(), 3);
        let values = linear.values(&bytes(&[1.0, 1.0, 2.0])).expect("it fits");
        assert_eq!(values, [9.0, 10.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Linear::new(&bytes(&[1.0, 2.0, 3.0]), vec![0.0, 0.0]).is_err());
        assert!(Linear::new(&[], vec![]).is_err());
        assert!(Linear::new(&[], vec![0.0]).is_err());
        let linear = Linear::new(&bytes(&[1.0, 2.0]), vec![0.0]).expect("it fits");
        assert!(linear.values(&bytes(&[1.0])).is_err());
        assert!(linear.values(&[0; 7]).is_err());
        assert!(dot(&bytes(&[1.0]), &bytes(&[1.0, 2.0])).is_err());
        assert!(dot(&[0; 3], &[0; 3]).is_err());
    }

    #[test]
    fn the_product_of_vectors() {
        assert_eq!(dot(&bytes(&[0.5, 2.0]), &bytes(&[2.0, 0.5])), Ok(2.0));
        assert_eq!(dot(&[], &[]), Ok(0.0));
    }
}
