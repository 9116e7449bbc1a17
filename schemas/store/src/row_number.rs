//! Row numbers of chunks files, by which exchanges refer to chunks.

/// A chunks file would have more rows than a 32-bit number can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyRows;

/// Returns the number of the row after this many rows.
pub(crate) fn row_number(rows: usize) -> Result<u32, TooManyRows> {
    u32::try_from(rows).map_err(|_| TooManyRows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_cannot_be_numbered_is_an_error() {
        assert_eq!(row_number(7), Ok(7));
        assert_eq!(row_number(u32::MAX as usize), Ok(u32::MAX));
        assert_eq!(row_number(u32::MAX as usize + 1), Err(TooManyRows));
    }
}
