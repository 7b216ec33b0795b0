//! The suite that every backend must pass: `conformance_tests!` makes a test of each check in here.

mod any_value;
pub(crate) mod calls;
mod keys;
mod machine;
mod model;
mod results;

use super::{Displaced, Error, ImageKey, Store};
use crate::domain::{
    AccountId, Definition, Digest, Function, FunctionName, FunctionUuid, Image, ImageConfig, MemoryKind, ModuleInfo,
    Quota, QuotaKind, Timestamp,
};
pub(crate) use calls::*;
pub(crate) use keys::*;
pub(crate) use machine::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
pub(crate) use results::*;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Where a store lives: a fresh one is empty.
pub(crate) trait Disk {
    /// Opens the store. The one that was opened before is dropped by then.
    fn open(&self) -> Arc<dyn Store>;
}

/// Makes a test of every check, each in a fresh [`Disk`] that `$fresh` makes.
macro_rules! conformance_tests {
    ($fresh:expr) => {
        conformance_tests! { $fresh;
            keeps_every_field_of_a_function
            keeps_every_field_of_an_image
            keeps_everything_when_opened_again
            lists_in_order
            a_name_is_taken_once
            a_removed_name_is_free
            function_quota_has_a_boundary
            a_taken_name_comes_before_a_full_quota
            an_update_keeps_name_and_creation
            what_is_not_there_is_not_found
            a_tag_moves_and_its_image_is_forgotten
            a_tag_moves_and_its_image_is_kept
            an_image_can_be_kept_of_two_tags
            the_same_module_replaces_itself
            image_quota_has_a_boundary
            image_bytes_count_each_module_once
            a_refused_image_changes_nothing
            accounts_do_not_see_each_other
            creates_at_once_all_land
            of_creates_of_one_name_one_wins
            of_creates_at_once_the_quota_lets_through_as_many_as_it_says
            keeps_every_field_of_a_call
            keeps_every_field_of_a_result
            places_grow_in_the_order_of_acceptance
            a_place_is_taken_once
            a_call_needs_its_function
            an_id_is_taken_once
            a_key_names_the_call_before
            a_key_expires
            keys_have_a_boundary
            a_call_is_claimed_once
            claims_at_once_start_each_call_once
            every_start_has_a_number
            only_the_start_that_runs_ends_a_call
            what_leaves_the_store_was_in_that_state
            a_crash_takes_the_calls_back_to_their_places
            an_interrupted_call_counts_among_the_results
            a_function_takes_its_calls_with_it
            calls_are_listed_in_pages
            a_list_goes_on_behind_a_call_that_was_read
            results_share_their_bytes
            a_result_larger_than_the_bound_is_gone_at_once
            results_are_counted
            the_result_that_ended_first_goes_first
            calls_that_are_gone_are_counted
            results_expire
            smaller_bounds_hold_without_another_result
            whatever_expires_is_forgotten_in_the_end
            any_sequence_of_transitions_agrees_with_the_model
        }
    };
    ($fresh:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                $crate::store::conformance::$check(&$fresh).await;
            }
        )*
    };
}
pub(crate) use conformance_tests;

/// What a check is refused nothing by.
pub(crate) const AMPLE: Quota = Quota { functions: u64::MAX, images: u64::MAX, image_bytes: u64::MAX };
const AT_ONCE: u16 = 64;

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

fn name(text: &str) -> FunctionName {
    FunctionName::new(text).unwrap()
}

/// A function of account `a` whose address is made of its name.
pub(crate) fn function(function_name: &str) -> Function {
    let mut bytes = [0; 16];
    for (byte, letter) in bytes.iter_mut().zip(function_name.bytes()) {
        *byte = letter;
    }
    let mut asked = crate::domain::Change::default();
    asked.config.image = Some(crate::domain::ImageReference::parse("acme/tool:1").unwrap());
    Function {
        account: account("a"),
        name: name(function_name),
        uuid: FunctionUuid::from_random(bytes),
        created: Timestamp(1),
        definition: Definition::create(asked).unwrap(),
    }
}

/// An image of account `a` and of 10 bytes.
fn image(repository: &str, tag: &str, module: u8) -> Image {
    Image {
        account: account("a"),
        repository: repository.to_owned(),
        tag: Some(tag.to_owned()),
        digest: Digest::new([module; 32]),
        size_bytes: 10,
        created: Timestamp(1),
        info: ModuleInfo { memory: MemoryKind::Narrow, initial_memory_bytes: 0, imports: vec![], exports: vec![] },
        config: ImageConfig::default(),
    }
}

fn untagged(image: &Image) -> Image {
    Image { tag: None, ..image.clone() }
}

fn quota_error<T: std::fmt::Debug>(answer: Result<T, Error>) -> (QuotaKind, u64, u64) {
    match answer {
        Err(Error::QuotaFull { kind, used, limit }) => (kind, used, limit),
        other => panic!("no full quota but {other:?}"),
    }
}

/// Checks `check` with values of `strategy`, from within a task: with as many as `PROPTEST_CASES` says. Fails with the
/// simplest value that it finds.
fn for_all<S: Strategy>(strategy: S, check: impl AsyncFn(S::Value)) {
    let asked = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { 100 };
    let config = Config { cases, failure_persistence: None, ..asked };
    let runtime = tokio::runtime::Handle::current();
    let run = |value| {
        runtime.block_on(check(value));
        Ok(())
    };
    let checked = tokio::task::block_in_place(|| TestRunner::new(config).run(&strategy, run));
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

pub(crate) async fn keeps_every_field_of_a_function(disk: &dyn Disk) {
    let store = disk.open();
    let strategy = (any_value::function(), any_value::definition(), any::<[u8; 16]>());
    for_all(strategy, async |(function, definition, uuid)| {
        store.create_function(&function, AMPLE).await.unwrap();
        assert_eq!(store.functions().await.unwrap(), std::slice::from_ref(&function));
        let updated = Function { uuid: FunctionUuid::from_random(uuid), definition, ..function };
        store.update_function(&updated).await.unwrap();
        assert_eq!(store.functions().await.unwrap(), std::slice::from_ref(&updated));
        store.remove_function(&updated.account, &updated.name).await.unwrap();
        assert_eq!(store.functions().await.unwrap(), []);
    });
}

pub(crate) async fn keeps_every_field_of_an_image(disk: &dyn Disk) {
    let store = disk.open();
    for_all(any_value::image(), async |image| {
        store.put_image(&image, Displaced::Forget, AMPLE).await.unwrap();
        assert_eq!(store.images().await.unwrap(), std::slice::from_ref(&image));
        store.remove_image(&ImageKey::from(&image)).await.unwrap();
        assert_eq!(store.images().await.unwrap(), []);
    });
}

pub(crate) async fn keeps_everything_when_opened_again(disk: &dyn Disk) {
    let mut runner = TestRunner::deterministic();
    let mut functions = Vec::new();
    let mut images = Vec::new();
    let store = disk.open();
    for i in 0..20 {
        let mut function = any_value::function().new_tree(&mut runner).unwrap().current();
        function.name = name(&format!("f{i:02}"));
        function.account = account("a");
        store.create_function(&function, AMPLE).await.unwrap();
        functions.push(function);
        let mut image = any_value::image().new_tree(&mut runner).unwrap().current();
        image.repository = format!("r{i:02}");
        image.account = account("a");
        store.put_image(&image, Displaced::Forget, AMPLE).await.unwrap();
        images.push(image);
    }
    let moved = Image { digest: Digest::new([0; 32]), ..images[19].clone() };
    store.put_image(&moved, Displaced::Keep, AMPLE).await.unwrap();
    images.splice(19.., [untagged(&images[19]), moved]);
    drop(store);

    for _ in 0..2 {
        let store = disk.open();
        assert_eq!(store.functions().await.unwrap(), functions);
        assert_eq!(store.images().await.unwrap(), images);
    }
}

pub(crate) async fn lists_in_order(disk: &dyn Disk) {
    let store = disk.open();
    for (byte, of, called) in [(1, "b", "a"), (2, "a", "z"), (3, "a", "a-b"), (4, "a", "a0"), (5, "a", "a")] {
        let uuid = FunctionUuid::from_random([byte; 16]);
        let function = Function { account: account(of), uuid, ..function(called) };
        store.create_function(&function, AMPLE).await.unwrap();
        let image = Image { account: account(of), ..image(called, "t2", 1) };
        store.put_image(&image, Displaced::Forget, AMPLE).await.unwrap();
        store.put_image(&Image { tag: Some("t1".into()), ..image }, Displaced::Forget, AMPLE).await.unwrap();
    }
    let functions = store.functions().await.unwrap();
    assert_eq!(functions.len(), 5);
    assert!(functions.is_sorted_by_key(|function| (function.account.clone(), function.name.clone())));
    let images = store.images().await.unwrap();
    assert_eq!(images.len(), 10);
    assert!(images.is_sorted_by_key(|image| (image.account.clone(), image.repository.clone(), image.tag.clone())));
}

pub(crate) async fn a_name_is_taken_once(disk: &dyn Disk) {
    let store = disk.open();
    let first = function("f");
    store.create_function(&first, AMPLE).await.unwrap();
    let second = Function { uuid: FunctionUuid::from_random([9; 16]), created: Timestamp(2), ..first.clone() };
    let error = store.create_function(&second, AMPLE).await.unwrap_err();
    assert!(matches!(&error, Error::NameTaken(taken) if *taken == first.name), "{error:?}");
    assert_eq!(store.functions().await.unwrap(), [first]);
}

pub(crate) async fn a_removed_name_is_free(disk: &dyn Disk) {
    let store = disk.open();
    let quota = Quota { functions: 1, ..AMPLE };
    for _ in 0..2 {
        store.create_function(&function("f"), quota).await.unwrap();
        store.remove_function(&account("a"), &name("f")).await.unwrap();
    }
    assert_eq!(store.functions().await.unwrap(), []);
}

pub(crate) async fn function_quota_has_a_boundary(disk: &dyn Disk) {
    let store = disk.open();
    let quota = Quota { functions: 3, ..AMPLE };
    for called in ["f0", "f1", "f2"] {
        store.create_function(&function(called), quota).await.unwrap();
    }
    let refused = store.create_function(&function("f3"), quota).await;
    assert_eq!(quota_error(refused), (QuotaKind::Functions, 3, 3));
    assert_eq!(store.functions().await.unwrap().len(), 3);
    let nothing = Quota { functions: 0, ..AMPLE };
    assert_eq!(quota_error(store.create_function(&function("f3"), nothing).await), (QuotaKind::Functions, 3, 0));
    store.update_function(&function("f2")).await.unwrap();
}

pub(crate) async fn a_taken_name_comes_before_a_full_quota(disk: &dyn Disk) {
    let store = disk.open();
    let quota = Quota { functions: 1, ..AMPLE };
    store.create_function(&function("f"), quota).await.unwrap();
    let second = Function { uuid: FunctionUuid::from_random([9; 16]), ..function("f") };
    assert!(matches!(store.create_function(&second, quota).await, Err(Error::NameTaken(_))));
}

pub(crate) async fn an_update_keeps_name_and_creation(disk: &dyn Disk) {
    let store = disk.open();
    let (first, other) = (function("f"), function("g"));
    store.create_function(&first, AMPLE).await.unwrap();
    store.create_function(&other, AMPLE).await.unwrap();
    let mut asked = Function { created: Timestamp(2), uuid: FunctionUuid::from_random([9; 16]), ..first.clone() };
    asked.definition.config.tty = true;
    store.update_function(&asked).await.unwrap();
    let expected = Function { created: first.created, ..asked };
    assert_eq!(store.functions().await.unwrap(), [expected, other]);
}

pub(crate) async fn what_is_not_there_is_not_found(disk: &dyn Disk) {
    let store = disk.open();
    let (function, image) = (function("f"), image("r", "t", 1));
    let key = ImageKey::from(&image);
    store.create_function(&function, AMPLE).await.unwrap();
    store.put_image(&image, Displaced::Forget, AMPLE).await.unwrap();

    let not_found = |answer: Result<(), Error>| matches!(answer, Err(Error::NotFound));
    assert!(not_found(store.update_function(&Function { name: name("g"), ..function.clone() }).await));
    assert!(not_found(store.update_function(&Function { account: account("b"), ..function.clone() }).await));
    assert!(not_found(store.remove_function(&function.account, &name("g")).await));
    assert!(not_found(store.remove_function(&account("b"), &function.name).await));
    for absent in [
        ImageKey { account: account("b"), ..key.clone() },
        ImageKey { repository: "s".into(), ..key.clone() },
        ImageKey { tag: Some("u".into()), ..key.clone() },
        ImageKey { tag: None, ..key.clone() },
        ImageKey { digest: Digest::new([2; 32]), ..key.clone() },
    ] {
        assert!(not_found(store.remove_image(&absent).await), "{absent:?}");
    }
    assert!(not_found(store.put_image(&untagged(&image), Displaced::Keep, AMPLE).await));
    assert_eq!(store.functions().await.unwrap(), [function]);
    assert_eq!(store.images().await.unwrap(), [image]);

    store.remove_image(&key).await.unwrap();
    assert!(not_found(store.remove_image(&key).await));
}

pub(crate) async fn a_tag_moves_and_its_image_is_forgotten(disk: &dyn Disk) {
    let store = disk.open();
    let (old, other, new) = (image("r", "t", 1), image("r", "u", 1), image("r", "t", 2));
    for image in [&old, &other, &new] {
        store.put_image(image, Displaced::Forget, AMPLE).await.unwrap();
    }
    assert_eq!(store.images().await.unwrap(), [new, other]);
}

pub(crate) async fn a_tag_moves_and_its_image_is_kept(disk: &dyn Disk) {
    let store = disk.open();
    let (old, new) = (image("r", "t", 1), Image { created: Timestamp(2), ..image("r", "t", 2) });
    store.put_image(&old, Displaced::Keep, AMPLE).await.unwrap();
    store.put_image(&new, Displaced::Keep, AMPLE).await.unwrap();
    assert_eq!(store.images().await.unwrap(), [untagged(&old), new.clone()]);
    store.remove_image(&ImageKey::from(&untagged(&old))).await.unwrap();
    assert_eq!(store.images().await.unwrap(), [new]);
}

pub(crate) async fn an_image_can_be_kept_of_two_tags(disk: &dyn Disk) {
    let store = disk.open();
    let old = image("r", "t", 1);
    store.put_image(&old, Displaced::Keep, AMPLE).await.unwrap();
    store.put_image(&image("r", "u", 1), Displaced::Keep, AMPLE).await.unwrap();
    let new = [image("r", "t", 2), image("r", "u", 2)];
    for image in &new {
        store.put_image(image, Displaced::Keep, AMPLE).await.unwrap();
    }
    let [t, u] = new;
    assert_eq!(store.images().await.unwrap(), [untagged(&old), t, u]);
}

pub(crate) async fn the_same_module_replaces_itself(disk: &dyn Disk) {
    let store = disk.open();
    let quota = Quota { images: 1, image_bytes: 10, ..AMPLE };
    for displaced in [Displaced::Keep, Displaced::Forget] {
        for created in [1, 2] {
            let image = Image { created: Timestamp(created), ..image("r", "t", 1) };
            store.put_image(&image, displaced, quota).await.unwrap();
            assert_eq!(store.images().await.unwrap(), [image]);
        }
    }
}

pub(crate) async fn image_quota_has_a_boundary(disk: &dyn Disk) {
    let store = disk.open();
    let quota = Quota { images: 2, ..AMPLE };
    store.put_image(&image("r", "t", 1), Displaced::Forget, quota).await.unwrap();
    store.put_image(&image("r", "u", 1), Displaced::Forget, quota).await.unwrap();
    let refused = store.put_image(&image("s", "t", 1), Displaced::Forget, quota).await;
    assert_eq!(quota_error(refused), (QuotaKind::Images, 2, 2));
    // Only names with a tag count.
    store.put_image(&image("r", "t", 2), Displaced::Keep, quota).await.unwrap();
    store.put_image(&image("r", "u", 2), Displaced::Forget, quota).await.unwrap();
    assert_eq!(store.images().await.unwrap().len(), 3);
}

pub(crate) async fn image_bytes_count_each_module_once(disk: &dyn Disk) {
    let store = disk.open();
    let quota = Quota { image_bytes: 30, ..AMPLE };
    for (repository, tag) in [("r", "t"), ("r", "u"), ("s", "t"), ("s", "u")] {
        store.put_image(&image(repository, tag, 1), Displaced::Forget, quota).await.unwrap();
    }
    let large = |bytes| Image { size_bytes: bytes, ..image("x", "t", 2) };
    let refused = store.put_image(&large(21), Displaced::Forget, quota).await;
    assert_eq!(quota_error(refused), (QuotaKind::ImageBytes, 10, 30));
    store.put_image(&large(20), Displaced::Forget, quota).await.unwrap();
    let refused = store.put_image(&image("y", "t", 3), Displaced::Forget, quota).await;
    assert_eq!(quota_error(refused), (QuotaKind::ImageBytes, 30, 30));
    // Full, and still: another name of the same module, and a module in place of a forgotten one.
    store.put_image(&image("y", "t", 1), Displaced::Forget, quota).await.unwrap();
    let next = Image { size_bytes: 20, ..image("x", "t", 3) };
    // Kept, the old one counts on.
    let refused = store.put_image(&next, Displaced::Keep, quota).await;
    assert_eq!(quota_error(refused), (QuotaKind::ImageBytes, 30, 30));
    store.put_image(&next, Displaced::Forget, quota).await.unwrap();
}

pub(crate) async fn a_refused_image_changes_nothing(disk: &dyn Disk) {
    let store = disk.open();
    let old = image("r", "t", 1);
    store.put_image(&old, Displaced::Forget, AMPLE).await.unwrap();
    let large = Image { size_bytes: 100, ..image("r", "t", 2) };
    for displaced in [Displaced::Forget, Displaced::Keep] {
        let quota = Quota { image_bytes: 50, ..AMPLE };
        quota_error(store.put_image(&large, displaced, quota).await);
        assert_eq!(store.images().await.unwrap(), std::slice::from_ref(&old));
    }
}

pub(crate) async fn accounts_do_not_see_each_other(disk: &dyn Disk) {
    let store = disk.open();
    let quota = Quota { functions: 1, images: 1, image_bytes: 10 };
    let ours = function("f");
    let theirs = Function { account: account("b"), uuid: FunctionUuid::from_random([9; 16]), ..ours.clone() };
    let our_image = image("r", "t", 1);
    let their_image = Image { account: account("b"), ..image("r", "t", 2) };
    for (function, image) in [(&ours, &our_image), (&theirs, &their_image)] {
        store.create_function(function, quota).await.unwrap();
        store.put_image(image, Displaced::Forget, quota).await.unwrap();
    }
    let mut changed = theirs.clone();
    changed.definition.config.tty = true;
    store.update_function(&changed).await.unwrap();
    assert_eq!(store.functions().await.unwrap(), [ours, changed.clone()]);
    assert_eq!(store.images().await.unwrap(), [our_image.clone(), their_image.clone()]);

    store.remove_function(&account("a"), &name("f")).await.unwrap();
    store.remove_image(&ImageKey::from(&our_image)).await.unwrap();
    assert_eq!(store.functions().await.unwrap(), [changed]);
    assert_eq!(store.images().await.unwrap(), [their_image]);
}

/// Creates them all at once; how each ended.
async fn create_at_once(store: &Arc<dyn Store>, functions: Vec<Function>, quota: Quota) -> Vec<Result<(), Error>> {
    let mut tasks = JoinSet::new();
    for function in functions {
        let store = Arc::clone(store);
        tasks.spawn(async move { store.create_function(&function, quota).await });
    }
    tasks.join_all().await
}

pub(crate) async fn creates_at_once_all_land(disk: &dyn Disk) {
    let store = disk.open();
    let functions: Vec<_> = (0..AT_ONCE).map(|i| function(&format!("f{i:03}"))).collect();
    let answers = create_at_once(&store, functions.clone(), AMPLE).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(store.functions().await.unwrap(), functions);
}

pub(crate) async fn of_creates_of_one_name_one_wins(disk: &dyn Disk) {
    let store = disk.open();
    let of = |i: u16| Function { uuid: FunctionUuid::from_random([i as u8; 16]), ..function("f") };
    let answers = create_at_once(&store, (0..AT_ONCE).map(of).collect(), AMPLE).await;
    let taken = answers.iter().filter(|answer| matches!(answer, Err(Error::NameTaken(_)))).count();
    assert_eq!((taken, answers.iter().filter(|answer| answer.is_ok()).count()), (usize::from(AT_ONCE) - 1, 1));
    assert_eq!(store.functions().await.unwrap().len(), 1);
}

pub(crate) async fn of_creates_at_once_the_quota_lets_through_as_many_as_it_says(disk: &dyn Disk) {
    let store = disk.open();
    let functions = (0..AT_ONCE).map(|i| function(&format!("f{i:03}"))).collect();
    let quota = Quota { functions: 10, ..AMPLE };
    let answers = create_at_once(&store, functions, quota).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    for refused in answers.into_iter().filter(Result::is_err) {
        assert_eq!(quota_error(refused), (QuotaKind::Functions, 10, 10));
    }
    assert_eq!(store.functions().await.unwrap().len(), 10);
}
