use std::path::Path;

use super::*;

fn layers(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
    let mut layers = Layers::new();
    layers.read_text(Path::new("tholos.toml"), file)?;
    layers.read_environment(variables.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())));
    for (key, text) in flags {
        layers.set_flag(key, text)?;
    }
    layers.resolve()
}

fn named(name: &str) -> Config {
    Config { name: name.to_owned(), ..Config::default() }
}

#[track_caller]
fn refused(config: &Config, key: &str) {
    match config.validate() {
        Err(ConfigError::Invalid { key: found, .. }) => assert_eq!(found, key),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_default_is_a_value_of_its_key_within_its_bounds() {
    let mut config = Config::default();
    for key in KEYS {
        config.set(key.name, key.default).unwrap_or_else(|why| panic!("{}: {why}", key.name));
        assert_eq!(
            config.print(key.name).as_deref(),
            Some(key.default),
            "{} does not print as written",
            key.name
        );
        assert!(!key.summary().is_empty() && key.summary().len() < 160, "{}: {}", key.name, key.summary());
    }
    named("n1").validate().expect("the defaults go together");
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let key = "http";
    let [default, file, variable, flag] = ["127.0.0.1:8080", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
    for mask in 0..8_u8 {
        let (with_file, with_variable, with_flag) = (mask & 1 != 0, mask & 2 != 0, mask & 4 != 0);
        let text = if with_file { format!("http = \"{file}\"") } else { String::new() };
        let variables: &[_] = if with_variable { &[("THOLOS_HTTP", variable)] } else { &[] };
        let flags: &[_] = if with_flag { &[(key, flag)] } else { &[] };
        let resolved = layers(&text, variables, flags).unwrap();
        let (expected, origin) = match (with_flag, with_variable, with_file) {
            (true, _, _) => (flag, "flag --http"),
            (_, true, _) => (variable, "environment THOLOS_HTTP"),
            (_, _, true) => (file, "file tholos.toml"),
            _ => (default, "default"),
        };
        assert_eq!(resolved.config.http.to_string(), expected, "{mask:03b}");
        assert_eq!(resolved.origin(key).to_string(), origin, "{mask:03b}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let message = |file: &str| layers(file, &[], &[]).unwrap_err().to_string();
    assert_eq!(message("htpp = 1"), "there is no key `htpp` (file tholos.toml); did you mean `http`?");
    assert!(message("[limits]\nclient = 1").ends_with("did you mean `limits.clients`?"));
    assert!(message("key_bytes = 1").ends_with("did you mean `limits.key_bytes`?"));
    assert!(message("[wal]\nreplica = 1").ends_with("did you mean `replicas`?"));
    assert!(message("naem = 1").ends_with("did you mean `name`?"));
    let far = "the nearest is `reads`, and `tholos config example` lists all keys";
    assert!(message("qqqads = 1").ends_with(far), "{}", message("qqqads = 1"));
    let resolved = layers("", &[("THOLOS_WEIHGT", "2"), ("THOLOS_AT", "x")], &[]).unwrap();
    assert_eq!(resolved.warnings.len(), 1);
    assert!(resolved.warnings[0].contains("THOLOS_WEIGHT"), "{:?}", resolved.warnings);
}

#[test]
fn a_wrong_value_says_where_it_stands_and_what_would_be_right() {
    let message = |key: &str, text: &str| layers("", &[], &[(key, text)]).unwrap_err().to_string();
    assert_eq!(message("weight", "0"), "`weight` cannot be \"0\" (flag --weight): it must be 1 to 100");
    assert!(message("http", "8080").contains("HOST:PORT"));
    assert!(message("http", "[zz]:1").contains("HOST:PORT"));
    assert!(message("seeds", "n1").contains("NAME=HOST:PORT"));
    assert!(message("seeds", "n1=a:1,n1=b:1").contains("twice"));
    assert!(message("reads", "fast").contains("quorum, lease"));
    assert!(message("maxmemory", "1 mile").contains("bytes"));
    assert!(message("limits.key_bytes", "1gib").contains("1 to 67108864"));
}

#[test]
fn seeds_come_as_text_list_or_table() {
    let expected = "n1=10.0.0.1:7101,n2=[fe80::2]:7101";
    for file in [
        "seeds = \"n2=[fe80::2]:7101, n1=10.0.0.1:7101\"",
        "seeds = [\"n1=10.0.0.1:7101\", \"n2=[fe80::2]:7101\"]",
        "[seeds]\nn1 = \"10.0.0.1:7101\"\nn2 = \"[fe80::2]:7101\"",
    ] {
        assert_eq!(
            layers(file, &[], &[]).unwrap().config.print("seeds").as_deref(),
            Some(expected),
            "{file}"
        );
    }
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in
        [("7", 7), ("1k", 1000), ("1kb", 1024), ("64KiB", 65536), ("2 GB", 2 << 30), ("1TiB", 1 << 40)]
    {
        assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
    }
    assert!(ByteSize::parse("99999999999gb").is_err());
    assert_eq!(ByteSize(3 << 20).print(), "3MiB");
    assert_eq!(ByteSize(1025).print(), "1025");
}

#[test]
fn times_have_units_and_may_be_never() {
    let after = |seconds| Ok(After(Some(std::time::Duration::from_secs(seconds))));
    for (text, seconds, printed) in [
        ("90", 90, "90s"),
        ("10min", 600, "10min"),
        ("120 s", 120, "2min"),
        ("2h", 7200, "2h"),
        ("1d", 86_400, "24h"),
    ] {
        assert_eq!(After::parse(text), after(seconds), "{text}");
        assert_eq!(After::parse(text).unwrap().print(), printed, "{text}");
    }
    for never in ["0", "never", "0s"] {
        assert_eq!(
            (After::parse(never), After(None).print()),
            (Ok(After(None)), "never".to_owned()),
            "{never}"
        );
    }
    for wrong in ["", "s", "-1", "1.5h", "10 years", "99999999999d"] {
        assert!(After::parse(wrong).is_err(), "{wrong}");
    }
    let resolved = layers("[placement]\nauto = true\nreplace_after = 30", &[], &[]).unwrap().config;
    assert_eq!((resolved.placement_auto, Ok(resolved.placement_replace_after)), (true, after(30)));
    let message = layers("", &[], &[("placement.auto", "yes")]).unwrap_err().to_string();
    assert!(message.contains("true or false"), "{message}");
}

#[test]
fn secrets_come_by_variable_or_file_and_are_never_shown() {
    let secret = "correct horse battery";
    let path = std::env::temp_dir().join(format!("tholos-secret-{}", std::process::id()));
    std::fs::write(&path, format!("{secret}\n")).unwrap();
    let by_file = layers("", &[], &[("cluster_secret_file", path.to_str().unwrap())]).unwrap();
    let by_variable = layers("", &[("THOLOS_CLUSTER_SECRET", secret)], &[]).unwrap();
    for resolved in [&by_file, &by_variable] {
        assert_eq!(resolved.config.cluster_secret.as_ref().unwrap().reveal(), secret);
        assert!(!format!("{resolved:?}").contains("horse"));
        assert!(!resolved.config.print("cluster_secret").unwrap().contains("horse"));
    }
    let both = layers(
        "cluster_secret = \"another secret of mine\"",
        &[],
        &[("cluster_secret_file", path.to_str().unwrap())],
    );
    assert!(both.unwrap_err().to_string().contains("keep one"));
    std::fs::remove_file(&path).unwrap();
    let gone = layers("", &[], &[("requirepass_file", path.to_str().unwrap())]);
    assert!(matches!(gone, Err(ConfigError::File { .. })));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let address = |text: &str| text.parse::<Address>().unwrap();
    refused(&Config::default(), "name");
    refused(&named("a/b"), "name");
    refused(&named("../etc"), "name");
    refused(&Config { shards: 48, ..named("n1") }, "shards");
    refused(&Config { replicas: 2, ..named("n1") }, "replicas");
    refused(&Config { http: address("127.0.0.1:6379"), ..named("n1") }, "http");
    refused(&Config { cluster: address("0.0.0.0:7001"), ..named("n1") }, "cluster");
    refused(&Config { peer: address("10.0.0.1:7101"), ..named("n1") }, "peer");
    refused(&Config { seeds: Seeds::parse("n2=a:1").unwrap(), ..named("n1") }, "seeds");
    let nowhere = Some(address("[::]:7001"));
    refused(&Config { advertise_gateway: nowhere.clone(), ..named("n1") }, "advertise_gateway");
    refused(&Config { advertise_peer: nowhere, ..named("n1") }, "advertise_peer");
    refused(&Config { election_timeout_ms: 150, ..named("n1") }, "election_timeout_ms");
    refused(&Config { cluster_secret: Some(Secret::new("short")), ..named("n1") }, "cluster_secret");
    refused(&Config { limits_value_bytes: ByteSize(512 << 20), ..named("n1") }, "limits.query_buffer_bytes");
    let hasty = Config { election_timeout_ms: 199, heartbeat_interval_ms: 40, ..named("n1") };
    refused(&hasty, "election_timeout_ms");
    assert!(Config { reads: ReadMode::Quorum, ..hasty }.validate().is_ok());
    refused(&Config { wal_segment_bytes: ByteSize(256 << 20), ..named("n1") }, "wal.bytes_max");
    let beyond = Config {
        peer: address("0.0.0.0:7101"),
        advertise_peer: Some(address("db1.example:7101")),
        cluster_secret: Some(Secret::new("0123456789abcdef")),
        ..named("n1")
    };
    beyond.validate().expect("a secret opens the peer port");
    assert_eq!(beyond.founders()[0].address.to_string(), "db1.example:7101");
}

#[test]
fn what_no_cluster_can_be_founded_with_is_refused() {
    let founding = |seeds: &str, replicas| {
        let config = Config { seeds: Seeds::parse(seeds).unwrap(), replicas, ..named("n1") };
        config.validate().expect("a node that has its map may start with it");
        config.validate_founding().map_err(|error| error.to_string())
    };
    let refused = |seeds, replicas| founding(seeds, replicas).unwrap_err();
    assert_eq!((founding("", 3), founding("n1=a:1", 3)), (Ok(()), Ok(())), "one alone has one copy");
    assert_eq!((founding("n1=a:1,n2=b:1,n3=c:1", 3), founding("n1=a:1,n2=b:1", 1)), (Ok(()), Ok(())));
    let few = "`replicas`: 3 copies need as many nodes, and there are 2 seeds; use --replicas 1, or name more seeds";
    assert_eq!(refused("n1=a:1,n2=b:1", 3), few);
    assert!(refused("n1=a:1,n2=b:1,n3=c:1,n4=d:1", 5).contains("use --replicas 3"));
    assert!(refused("n1=a:1,n2=b:1,n3=a:1", 3).contains("`seeds`: n1 and n3 have one address, a:1"));
}

#[test]
fn an_empty_secret_of_the_environment_is_an_error() {
    for (name, text) in [("THOLOS_REQUIREPASS", ""), ("THOLOS_CLUSTER_SECRET", " \n")] {
        let error = layers("", &[(name, text)], &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} is empty")) && error.contains("unset it"), "{error}");
    }
    // As the example has it.
    assert!(layers("requirepass = \"\"", &[], &[]).unwrap().config.requirepass.is_none());
}

#[test]
fn the_example_has_every_key_and_changes_nothing() {
    let example = example();
    let resolved = layers(&example, &[], &[]).expect("the example is a legal file");
    assert_eq!(resolved.config, Config::default());
    // And with every line in force it is still the defaults.
    let in_force: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let resolved = layers(&in_force, &[], &[]).unwrap_or_else(|error| panic!("{error}\n{in_force}"));
    assert_eq!(resolved.config, Config::default());
    assert_eq!(resolved.origins.len(), KEYS.len());
}
