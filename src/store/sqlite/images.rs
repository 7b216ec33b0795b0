//! The transitions of images, in SQL.

use super::functions::found;
use super::record::ImageRow;
use super::writer::Problem;
use super::{Displaced, Error, ImageKey, failure};
use crate::domain::{Image, Quota, QuotaKind};
use crate::failpoint;
use rusqlite::{Connection, params};

const ALL: &str = "SELECT account_id, repository, tag, digest, size_bytes, created_ms, info, config FROM images
    WHERE trusted('images', repository, checksum,
        seal(account_id, repository, tag, digest, size_bytes, created_ms, info, config))
    ORDER BY account_id, repository, tag, digest";
const DELETE: &str = "DELETE FROM images WHERE account_id = ?1 AND repository = ?2 AND tag IS ?3 AND digest = ?4";
/// Takes the tag from another module, unless that one stands without a tag already.
const UNTAG: &str = "UPDATE OR IGNORE images SET tag = NULL, checksum = resealed(checksum,
        seal(account_id, repository, tag, digest, size_bytes, created_ms, info, config),
        seal(account_id, repository, NULL, digest, size_bytes, created_ms, info, config))
    WHERE account_id = ?1 AND repository = ?2 AND tag = ?3 AND digest <> ?4";
const DELETE_TAGGED: &str = "DELETE FROM images WHERE account_id = ?1 AND repository = ?2 AND tag = ?3";
const COUNT_TAGGED: &str = "SELECT count(*) FROM images WHERE account_id = ?1 AND tag IS NOT NULL";
const SUM_OTHER_MODULES: &str = "SELECT coalesce(sum(size_bytes), 0) FROM
    (SELECT max(size_bytes) AS size_bytes FROM images WHERE account_id = ?1 AND digest <> ?2 GROUP BY digest)";
const INSERT: &str = "INSERT INTO images
    (account_id, repository, tag, digest, size_bytes, created_ms, info, config, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, seal(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8))";

pub(super) fn all(connection: &Connection) -> Result<Vec<Image>, Error> {
    let fail = |e: rusqlite::Error| failure("images", &e);
    let mut statement = connection.prepare_cached(ALL).map_err(fail)?;
    let rows = statement.query_map([], ImageRow::read).map_err(fail)?;
    rows.map(|row| row.map_err(fail)?.into_image()).collect()
}

/// Makes room first and counts then: a refusal undoes both.
pub(super) fn put(connection: &Connection, row: &ImageRow, displaced: Displaced, quota: Quota) -> Result<(), Problem> {
    let Some(tag) = &row.tag else { return Err(Problem::Refused(Error::NotFound)) };
    match displaced {
        Displaced::Keep => {
            let values = params![row.account, row.repository, tag, row.digest];
            connection.prepare_cached(UNTAG)?.execute(values)?;
        }
        Displaced::Forget => {}
    }
    connection.prepare_cached(DELETE_TAGGED)?.execute(params![row.account, row.repository, tag])?;
    check_quota(connection, row, quota)?;
    failpoint::check("image.before_commit")?;
    connection.prepare_cached(INSERT)?.execute(params![
        row.account,
        row.repository,
        tag,
        row.digest,
        row.size_bytes,
        row.created_ms,
        row.info,
        row.config
    ])?;
    Ok(())
}

/// Whether a further image fits.
fn check_quota(connection: &Connection, row: &ImageRow, quota: Quota) -> Result<(), Problem> {
    let refuse = |kind, used, limit| Err(Problem::Refused(Error::QuotaFull { kind, used, limit }));
    let used: i64 = connection.prepare_cached(COUNT_TAGGED)?.query_row([&row.account], |count| count.get(0))?;
    let used = used.unsigned_abs();
    if used >= quota.images {
        return refuse(QuotaKind::Images, used, quota.images);
    }
    let others = params![row.account, row.digest];
    let used: i64 = connection.prepare_cached(SUM_OTHER_MODULES)?.query_row(others, |sum| sum.get(0))?;
    let used = used.unsigned_abs();
    if used.saturating_add(row.size_bytes.unsigned_abs()) > quota.image_bytes {
        return refuse(QuotaKind::ImageBytes, used, quota.image_bytes);
    }
    Ok(())
}

pub(super) fn remove(connection: &Connection, key: &ImageKey) -> Result<(), Problem> {
    let values = params![key.account.as_str(), key.repository, key.tag, key.digest.as_bytes()];
    found(connection.prepare_cached(DELETE)?.execute(values)?)?;
    Ok(failpoint::check("image_remove.before_commit")?)
}
