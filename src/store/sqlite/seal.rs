//! Checksums of rows, as functions of SQL: SQLite does not see a bit that flips in a page, unless it spoils the page's
//! shape.
//!
//! - `seal(value, …)` is the checksum of values, each with its type.
//! - `trusted(table, key, checksum, seal)` is 1 if the two are equal, and fails the statement with
//!   [`Error::CorruptRow`](super::Error) if they are not. It stands in the `WHERE` of whatever uses what is in a row.
//! - `resealed(checksum, before, after)` is the checksum of a row that changes. It is right if it was right before, so
//!   that a change needs no check and hides no fault.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};
use twox_hash::XxHash3_64;
use uuid::Uuid;

/// What such an error ends with: SQLite gives the errors of functions a text, and no code of their own.
const IS_WRONG: &str = ": its checksum is wrong";

/// Lets `connection` use the functions.
///
/// # Errors
/// When SQLite has no memory for them.
pub(super) fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function(c"seal", -1, flags, |values| Ok(seal(values)))?;
    connection.create_scalar_function(c"trusted", 4, flags, trusted)?;
    connection.create_scalar_function(c"resealed", 3, flags, |values| {
        Ok(values.get::<i64>(0)? ^ values.get::<i64>(1)? ^ values.get::<i64>(2)?)
    })
}

/// Whether an error says that a row is not what was written.
pub(super) fn is_broken(error: &Error) -> bool {
    matches!(error, Error::SqliteFailure(_, Some(text)) if text.ends_with(IS_WRONG))
}

fn seal(values: &mut Context<'_>) -> i64 {
    of((0..values.len()).map(|index| values.get_raw(index)))
}

/// The checksum of values, as `seal` has it: for one that is needed twice.
pub(super) fn of<'a>(values: impl ExactSizeIterator<Item = ValueRef<'a>>) -> i64 {
    let mut parts = Vec::with_capacity(values.len() * 17);
    for value in values {
        let (kind, bytes): (u8, &[u8]) = match value {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(number) => {
                parts.push(1);
                parts.extend(number.to_le_bytes());
                continue;
            }
            // No column has one.
            ValueRef::Real(number) => {
                parts.push(2);
                parts.extend(number.to_le_bytes());
                continue;
            }
            ValueRef::Text(bytes) => (3, bytes),
            ValueRef::Blob(bytes) => (4, bytes),
        };
        parts.push(kind);
        parts.extend((bytes.len() as u64).to_le_bytes());
        parts.extend(XxHash3_64::oneshot(bytes).to_le_bytes());
    }
    XxHash3_64::oneshot(&parts).cast_signed()
}

fn trusted(values: &mut Context<'_>) -> Result<bool> {
    if values.get::<i64>(2)? == values.get::<i64>(3)? {
        return Ok(true);
    }
    let key = match values.get_raw(1) {
        ValueRef::Text(name) => String::from_utf8_lossy(name).into_owned(),
        ValueRef::Blob(id) => Uuid::from_slice(id).map_or_else(|_| "no id".to_owned(), |id| id.to_string()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => "no key".to_owned(),
    };
    let problem = format!("{} ({key}){IS_WRONG}", values.get::<String>(0)?);
    Err(Error::UserFunctionError(problem.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::params;
    use std::collections::HashSet;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection).unwrap();
        connection
    }

    fn one<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> Result<T> {
        connection.query_row(&format!("SELECT {sql}"), [], |row| row.get(0))
    }

    #[test]
    fn values_that_differ_have_seals_that_differ() {
        let connection = connection();
        let different = [
            "seal()",
            "seal(NULL)",
            "seal(NULL, NULL)",
            "seal(0)",
            "seal(1)",
            "seal('')",
            "seal('1')",
            "seal(x'31')",
            "seal(x'')",
            "seal('ab', 'c')",
            "seal('a', 'bc')",
            "seal('abc')",
            "seal('c', 'ab')",
            "seal(1, 2)",
            "seal(2, 1)",
            "seal(0.0)",
        ];
        let seals: HashSet<i64> = different.iter().map(|sql| one(&connection, sql).unwrap()).collect();
        assert_eq!(seals.len(), different.len());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let connection = connection();
        let seal = |bytes: &[u8]| -> i64 {
            connection.query_row("SELECT seal(?1, ?2)", params![bytes, 7], |row| row.get(0)).unwrap()
        };
        for len in [1, 16, 100, 300, 2_000] {
            let bytes = vec![0xA5; len];
            let sound = seal(&bytes);
            for bit in 0..len * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(seal(&flipped), sound, "bit {bit} of {len} bytes");
            }
        }
    }

    #[test]
    fn a_row_with_another_checksum_is_named() {
        let connection = connection();
        assert!(one::<bool>(&connection, "trusted('t', 'k', seal(1), seal(1))").unwrap());
        for (key, shown) in
            [("'k'", "k"), ("x'000102030405060708090a0b0c0d0e0f'", "00010203-0405-0607-0809-0a0b0c0d0e0f")]
        {
            let error = one::<bool>(&connection, &format!("trusted('t', {key}, seal(1), seal(2))")).unwrap_err();
            assert!(is_broken(&error));
            assert_eq!(error.to_string(), format!("t ({shown}): its checksum is wrong"));
        }
        assert!(!is_broken(&one::<bool>(&connection, "nonsense").unwrap_err()));
    }

    #[test]
    fn a_change_hides_no_fault() {
        let connection = connection();
        let after = "resealed(seal(1), seal(1), seal(2)) = seal(2)";
        assert!(one::<bool>(&connection, after).unwrap());
        assert!(!one::<bool>(&connection, "resealed(seal(9), seal(1), seal(2)) = seal(2)").unwrap());
        let back = "resealed(resealed(seal(9), seal(1), seal(2)), seal(2), seal(1)) = seal(9)";
        assert!(one::<bool>(&connection, back).unwrap());
    }
}
