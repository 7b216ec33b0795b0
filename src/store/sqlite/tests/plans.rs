//! How SQLite goes about the statements: none may read more than it is about.

use super::*;
use calls::{
    BROUGHT, CLAIM, CRASHED, DELETE_KEYS_OF_FUNCTION, DELETE_OF_FUNCTION, DROP_PENDING, GIVE_BACK, KEY, RUNNING_ONES,
    WAITING,
};
use known::{FUNCTION_OF, LIST, ONE, PLACE_BEHIND, PLACE_OF};
use results::{DROP, EXPIRED, FINISH, FORGET, FORGET_KEY, GO, OLD_KEYS, OLDEST, TAKE};

fn plan(connection: &Connection, statement: &str) -> String {
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
    let steps: Vec<String> = plan.raw_query().mapped(|step| step.get("detail")).map(Result::unwrap).collect();
    steps.join("; ")
}

#[tokio::test]
async fn every_statement_has_its_index() {
    let directory = Directory::new();
    let _store = directory.store();
    let sql = directory.sql();
    let by_id = "SEARCH calls USING INDEX sqlite_autoindex_calls_1 (call_id=?)";
    let payload = "SEARCH payloads USING INTEGER PRIMARY KEY (rowid=?)";
    let by_place = "SEARCH calls USING INTEGER PRIMARY KEY (rowid=?)";
    let by_key = "SEARCH idempotency_keys USING PRIMARY KEY (account_id=? AND function=? AND key=?)";
    // Only what is open, and in the order of the index.
    let open = "SCAN calls USING INDEX calls_open";
    let of_function = "SEARCH calls USING INDEX calls_of_function (account_id=? AND function=?)";
    let cascading = |plan: &str| format!("{plan}; {payload}");
    for (statement, expected) in [
        (CLAIM, by_id),
        (GIVE_BACK, by_id),
        (DROP_PENDING, &cascading(by_id)),
        (CRASHED, by_id),
        (ONE, &format!("{by_id}; SEARCH payloads USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN")),
        (BROUGHT, payload),
        (TAKE, payload),
        (FUNCTION_OF, by_id),
        (PLACE_OF, by_id),
        (FINISH, by_id),
        (DROP, &cascading(by_id)),
        (GO, by_place),
        (FORGET, &cascading(by_place)),
        (KEY, by_key),
        (FORGET_KEY, by_key),
        (RUNNING_ONES, open),
        (WAITING, open),
        (PLACE_BEHIND, of_function),
        (DELETE_OF_FUNCTION, &cascading(&of_function.replace("INDEX", "COVERING INDEX"))),
        (LIST, "SEARCH calls USING INDEX calls_of_function (account_id=? AND function=? AND place>?)"),
        (OLDEST, "SEARCH calls USING INDEX calls_ended (account_id=? AND function=? AND state=? AND end_number>?)"),
        (EXPIRED, "SEARCH calls USING INDEX calls_by_end (state=? AND ended_ms<?)"),
        (OLD_KEYS, "SEARCH idempotency_keys USING COVERING INDEX idempotency_keys_by_age (created_ms<?)"),
        (DELETE_KEYS_OF_FUNCTION, "SEARCH idempotency_keys USING PRIMARY KEY (account_id=? AND function=?)"),
    ] {
        assert_eq!(plan(&sql, statement), expected, "{statement}");
    }
}
