"""The tables and the readable views of the one SQLite file: the SQL of each migration, oldest first.

Owns this SQL; `schema.py` runs it. Invariant: a migration is appended, never changed.
"""

# Name and SQL of each migration, oldest first. Statements are separated by ";" and contain none.
# A migration that rebuilds or renames a table must drop the views first and create them again. A view reads JSON with
# json_each only: under trusted_schema = OFF, SQLite 3.38 to 3.40 refuse the other JSON functions in a view.
MIGRATIONS = {
    "questions_and_decisions": """
    CREATE TABLE model_files (
        path TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        facts TEXT NOT NULL
    );
    CREATE TABLE questions (fingerprint TEXT PRIMARY KEY, stem TEXT NOT NULL, options TEXT NOT NULL);
    CREATE TABLE readings (
        id INTEGER PRIMARY KEY, created_at REAL NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        model_sha256 TEXT NOT NULL, adapter_sha256 TEXT NOT NULL, profile_sha256 TEXT NOT NULL, reading TEXT NOT NULL
    );
    CREATE INDEX readings_by_key ON readings (fingerprint, model_sha256, adapter_sha256, profile_sha256);
    CREATE TABLE cloud_answers (
        id INTEGER PRIMARY KEY, created_at REAL NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        cloud_model TEXT NOT NULL, endpoint TEXT NOT NULL, prompt_version INTEGER NOT NULL, answer TEXT NOT NULL
    );
    CREATE INDEX cloud_answers_by_key ON cloud_answers (fingerprint, cloud_model, endpoint, prompt_version);
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
        job_key TEXT NOT NULL UNIQUE, dedupe_key TEXT NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        state TEXT NOT NULL CHECK (state IN ('ready', 'sending', 'done')),
        attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT
    );
    CREATE UNIQUE INDEX outbox_waiting ON outbox (dedupe_key) WHERE state IN ('ready', 'sending');
    CREATE TABLE decisions (
        decision_id TEXT PRIMARY KEY, created_at REAL NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        rule_version INTEGER NOT NULL, policy TEXT NOT NULL, circumstances TEXT NOT NULL,
        reading_id INTEGER REFERENCES readings, cloud_answer_id INTEGER REFERENCES cloud_answers, cloud_kind TEXT,
        answer TEXT NOT NULL, route TEXT NOT NULL, reason TEXT NOT NULL, cause TEXT, score REAL,
        deferred INTEGER NOT NULL, recalled INTEGER NOT NULL, provisional INTEGER NOT NULL,
        queue_id INTEGER REFERENCES outbox, ending TEXT, ended_at REAL, final_answer TEXT
    );
    CREATE INDEX decisions_by_queue ON decisions (queue_id);
    CREATE INDEX decisions_by_time ON decisions (created_at);
    """,
    "cloud_answers_to_open_questions": """
    UPDATE cloud_answers SET answer = json_set(json_remove(answer, '$.letter'), '$.answer', json_extract(answer, '$.letter'))
        WHERE json_extract(answer, '$.letter') IS NOT NULL
    """,
    "queue_with_device_time": """
    CREATE TABLE outbox_3 (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
        put_s REAL NOT NULL, due_s REAL NOT NULL,
        job_key TEXT NOT NULL UNIQUE, dedupe_key TEXT NOT NULL, fingerprint TEXT NOT NULL REFERENCES questions,
        state TEXT NOT NULL CHECK (state IN ('ready', 'sending', 'done', 'dead', 'expired', 'cancelled')),
        attempts INTEGER NOT NULL DEFAULT 0, suspicions INTEGER NOT NULL DEFAULT 0, last_error TEXT,
        answers_before INTEGER NOT NULL, payload TEXT, size_bytes INTEGER NOT NULL
    );
    INSERT INTO outbox_3 (id, created_at, updated_at, put_s, due_s, job_key, dedupe_key, fingerprint, state, attempts, last_error,
                          answers_before, size_bytes)
        SELECT o.id, o.created_at, o.updated_at, 0, 0, o.job_key, o.dedupe_key, o.fingerprint, o.state, o.attempts, o.last_error,
               (SELECT coalesce(max(c.id), 0) FROM cloud_answers c WHERE c.created_at < o.created_at),
               length(q.stem) + length(q.options)
        FROM outbox o JOIN questions q USING (fingerprint);
    DROP TABLE outbox;
    ALTER TABLE outbox_3 RENAME TO outbox;
    CREATE UNIQUE INDEX outbox_waiting ON outbox (dedupe_key) WHERE state IN ('ready', 'sending');
    CREATE INDEX outbox_sizes ON outbox (size_bytes) WHERE state IN ('ready', 'sending');
    CREATE INDEX outbox_ages ON outbox (put_s) WHERE state = 'ready';
    CREATE INDEX outbox_dead ON outbox (updated_at) WHERE state = 'dead';
    CREATE TABLE clock (
        id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT NOT NULL, uptime_s REAL NOT NULL, device_s REAL NOT NULL,
        wall REAL NOT NULL, trusted INTEGER NOT NULL
    );
    CREATE TABLE clouds (endpoint TEXT PRIMARY KEY, health TEXT NOT NULL);
    CREATE TABLE spending (id INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, at_s REAL NOT NULL, micros INTEGER NOT NULL);
    CREATE INDEX spending_by_time ON spending (endpoint, at_s)
    """,
    "forgetting": """
    CREATE TABLE marks (name TEXT PRIMARY KEY, value NUMERIC NOT NULL);
    ALTER TABLE questions ADD COLUMN asked_s REAL NOT NULL DEFAULT 0;
    UPDATE questions SET asked_s = coalesce((SELECT device_s FROM clock), 0);
    CREATE INDEX questions_by_age ON questions (asked_s);
    ALTER TABLE cloud_answers ADD COLUMN used_s REAL NOT NULL DEFAULT 0;
    ALTER TABLE cloud_answers ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE cloud_answers SET used_s = coalesce((SELECT device_s FROM clock), 0), size_bytes = length(CAST(answer AS BLOB));
    CREATE INDEX cloud_answers_by_use ON cloud_answers (used_s, size_bytes) WHERE size_bytes > 0;
    CREATE INDEX decisions_by_question ON decisions (fingerprint);
    CREATE INDEX outbox_by_question ON outbox (fingerprint)
    """,
    "numbered_ends": """
    ALTER TABLE decisions ADD COLUMN end_number INTEGER;
    UPDATE decisions SET end_number = n
        FROM (SELECT rowid AS r, row_number() OVER (ORDER BY ended_at, rowid) AS n FROM decisions WHERE ending IS NOT NULL)
        WHERE decisions.rowid = r;
    CREATE INDEX decisions_by_end ON decisions (end_number) WHERE end_number IS NOT NULL
    """,
    "readable_views": """
    CREATE VIEW decisions_readable AS
        SELECT d.number, d.decision_id, strftime('%Y-%m-%dT%H:%M:%SZ', d.created_at, 'unixepoch') AS asked_at, d.stem AS question,
               (SELECT group_concat(char(65 + j.key) || '. ' || j.value, ' | ') FROM json_each(d.options) j) AS options,
               d.answer, CASE WHEN d.options = '[]' THEN d.answer ELSE
                   (SELECT j.value FROM json_each(d.options) j WHERE char(65 + j.key) = d.answer) END AS answer_text,
               (SELECT CAST(j.value AS REAL) FROM json_each(d.reading) j WHERE j.key = 'level') AS confidence, d.score,
               (SELECT j.value FROM json_each(d.policy) j WHERE j.key = 'tau') AS tau,
               (SELECT j.value FROM json_each(d.policy) j WHERE j.key = 'name') AS policy, d.route, d.reason, d.cause,
               CASE WHEN d.deferred THEN 'yes' ELSE 'no' END AS deferred, CASE WHEN d.recalled THEN 'yes' ELSE 'no' END AS recalled,
               CASE WHEN d.provisional THEN 'yes' ELSE 'no' END AS provisional,
               CASE WHEN d.provisional THEN coalesce(d.ending, 'waiting') END AS ending,
               d.final_answer, CASE WHEN d.options = '[]' THEN d.final_answer ELSE
                   (SELECT j.value FROM json_each(d.options) j WHERE char(65 + j.key) = d.final_answer) END AS final_answer_text,
               strftime('%Y-%m-%dT%H:%M:%SZ', d.ended_at, 'unixepoch') AS ended_at,
               (SELECT n.value FROM model_files m, json_each(m.facts) s, json_each(m.facts) n
                   WHERE s.key = 'sha256' AND s.value = d.model_sha256 AND n.key = 'name' LIMIT 1) AS model,
               d.cloud_model, d.queue_id AS queue_number
        FROM (SELECT d.rowid AS number, d.decision_id, d.created_at, d.answer, d.score, d.route, d.reason, d.cause, d.deferred, d.recalled,
                     d.provisional, d.ending, d.final_answer, d.ended_at, d.queue_id, d.policy, q.stem, q.options, r.reading,
                     r.model_sha256, c.cloud_model
              FROM decisions d JOIN questions q USING (fingerprint) LEFT JOIN readings r ON r.id = d.reading_id
              LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id) d
        ORDER BY d.number;
    CREATE VIEW queue_readable AS
        SELECT o.id AS number, o.state, o.attempts, o.last_error, q.stem AS question,
               strftime('%Y-%m-%dT%H:%M:%SZ', o.created_at, 'unixepoch') AS queued_at,
               strftime('%Y-%m-%dT%H:%M:%SZ', o.updated_at, 'unixepoch') AS changed_at,
               (SELECT count(*) FROM decisions d WHERE d.queue_id = o.id AND d.provisional AND d.ending IS NULL) AS waiting_decisions
        FROM outbox o JOIN questions q USING (fingerprint)
        ORDER BY o.id;
    CREATE VIEW cloud_answers_readable AS
        SELECT c.id AS number, strftime('%Y-%m-%dT%H:%M:%SZ', c.created_at, 'unixepoch') AS received_at, q.stem AS question,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'answer') AS answer,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'reply') AS reply, c.cloud_model, c.endpoint,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'latency_ms') AS latency_ms,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'n_prompt_tokens') AS prompt_tokens,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'n_completion_tokens') AS completion_tokens,
               CASE WHEN c.kept IS NULL THEN 'yes' ELSE 'no' END AS removed
        FROM (SELECT id, created_at, fingerprint, cloud_model, endpoint, nullif(answer, '') AS kept FROM cloud_answers) c
        JOIN questions q USING (fingerprint)
        ORDER BY c.id;
    CREATE VIEW spending_readable AS
        SELECT s.id AS number, s.endpoint, strftime('%Y-%m-%dT%H:%M:%SZ', c.wall - c.device_s + s.at_s, 'unixepoch') AS called_at,
               s.micros / 1e6 AS cost
        FROM spending s LEFT JOIN clock c
        ORDER BY s.id
    """,
    "typed_answers": """
    DROP VIEW decisions_readable;
    DROP VIEW cloud_answers_readable;
    ALTER TABLE cloud_answers ADD COLUMN api TEXT NOT NULL DEFAULT 'chat';
    DROP INDEX cloud_answers_by_key;
    CREATE INDEX cloud_answers_by_key ON cloud_answers (fingerprint, cloud_model, endpoint, prompt_version, api);
    CREATE VIEW decisions_readable AS
        SELECT d.number, d.decision_id, strftime('%Y-%m-%dT%H:%M:%SZ', d.created_at, 'unixepoch') AS asked_at, d.stem AS question,
               (SELECT group_concat(char(65 + j.key) || '. ' || j.value, ' | ') FROM json_each(d.options) j) AS options,
               d.answer, CASE WHEN d.options = '[]' THEN d.answer ELSE
                   (SELECT j.value FROM json_each(d.options) j WHERE char(65 + j.key) = d.answer) END AS answer_text,
               (SELECT CAST(j.value AS REAL) FROM json_each(d.reading) j WHERE j.key = 'level') AS confidence, d.score,
               (SELECT j.value FROM json_each(d.policy) j WHERE j.key = 'tau') AS tau,
               (SELECT j.value FROM json_each(d.policy) j WHERE j.key = 'name') AS policy, d.route, d.reason, d.cause,
               CASE WHEN d.deferred THEN 'yes' ELSE 'no' END AS deferred, CASE WHEN d.recalled THEN 'yes' ELSE 'no' END AS recalled,
               CASE WHEN d.provisional THEN 'yes' ELSE 'no' END AS provisional,
               CASE WHEN d.provisional THEN coalesce(d.ending, 'waiting') END AS ending,
               d.final_answer, CASE WHEN d.options = '[]' THEN d.final_answer ELSE
                   (SELECT j.value FROM json_each(d.options) j WHERE char(65 + j.key) = d.final_answer) END AS final_answer_text,
               strftime('%Y-%m-%dT%H:%M:%SZ', d.ended_at, 'unixepoch') AS ended_at,
               (SELECT n.value FROM model_files m, json_each(m.facts) s, json_each(m.facts) n
                   WHERE s.key = 'sha256' AND s.value = d.model_sha256 AND n.key = 'name' LIMIT 1) AS model,
               d.cloud_model, d.queue_id AS queue_number, CASE WHEN d.cloud_model IS NOT NULL THEN d.api END AS cloud_api,
               (SELECT CAST(p.value AS REAL) FROM json_each(d.kept) a, json_each(d.kept, '$.probs') p
                   WHERE a.key = 'answer' AND p.key = a.value) AS cloud_confidence
        FROM (SELECT d.rowid AS number, d.decision_id, d.created_at, d.answer, d.score, d.route, d.reason, d.cause, d.deferred, d.recalled,
                     d.provisional, d.ending, d.final_answer, d.ended_at, d.queue_id, d.policy, q.stem, q.options, r.reading,
                     r.model_sha256, c.cloud_model, c.api, nullif(c.answer, '') AS kept
              FROM decisions d JOIN questions q USING (fingerprint) LEFT JOIN readings r ON r.id = d.reading_id
              LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id) d
        ORDER BY d.number;
    CREATE VIEW cloud_answers_readable AS
        SELECT c.id AS number, strftime('%Y-%m-%dT%H:%M:%SZ', c.created_at, 'unixepoch') AS received_at, q.stem AS question,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'answer') AS answer,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'reply') AS reply, c.cloud_model, c.endpoint,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'latency_ms') AS latency_ms,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'n_prompt_tokens') AS prompt_tokens,
               (SELECT j.value FROM json_each(c.kept) j WHERE j.key = 'n_completion_tokens') AS completion_tokens,
               CASE WHEN c.kept IS NULL THEN 'yes' ELSE 'no' END AS removed, c.api,
               (SELECT CAST(p.value AS REAL) FROM json_each(c.kept) a, json_each(c.kept, '$.probs') p
                   WHERE a.key = 'answer' AND p.key = a.value) AS confidence
        FROM (SELECT id, created_at, fingerprint, cloud_model, endpoint, api, nullif(answer, '') AS kept FROM cloud_answers) c
        JOIN questions q USING (fingerprint)
        ORDER BY c.id
    """,
    "calibrations_and_audits": """
    CREATE TABLE calibrations (
        sha256 TEXT PRIMARY KEY, created_at REAL NOT NULL, model_sha256 TEXT NOT NULL, adapter_sha256 TEXT NOT NULL,
        profile_sha256 TEXT NOT NULL, calibration TEXT NOT NULL
    );
    CREATE TABLE audits (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, put_s REAL NOT NULL, due_s REAL NOT NULL,
        decision_id TEXT NOT NULL UNIQUE REFERENCES decisions, fingerprint TEXT NOT NULL REFERENCES questions,
        calibration TEXT NOT NULL, cloud_model TEXT NOT NULL, answer TEXT NOT NULL, payload TEXT,
        state TEXT NOT NULL CHECK (state IN ('ready', 'sending', 'done', 'dropped')), attempts INTEGER NOT NULL DEFAULT 0,
        cloud_answer TEXT, agrees INTEGER CHECK (agrees IN (0, 1)), ended_at REAL, last_error TEXT
    );
    CREATE INDEX audits_waiting ON audits (due_s, id) WHERE state IN ('ready', 'sending');
    CREATE INDEX audits_by_question ON audits (fingerprint);
    CREATE TABLE agreements (
        id INTEGER PRIMARY KEY AUTOINCREMENT, calibration TEXT NOT NULL, cloud_model TEXT NOT NULL,
        agrees INTEGER NOT NULL CHECK (agrees IN (0, 1))
    );
    CREATE INDEX agreements_by_calibration ON agreements (calibration, cloud_model, id, agrees);
    CREATE VIEW audits_readable AS
        SELECT a.id AS number, a.decision_id, strftime('%Y-%m-%dT%H:%M:%SZ', a.created_at, 'unixepoch') AS asked_at, q.stem AS question,
               a.answer, CASE WHEN q.options = '[]' THEN a.answer ELSE
                   (SELECT j.value FROM json_each(q.options) j WHERE char(65 + j.key) = a.answer) END AS answer_text,
               a.cloud_answer, CASE WHEN q.options = '[]' THEN a.cloud_answer ELSE
                   (SELECT j.value FROM json_each(q.options) j WHERE char(65 + j.key) = a.cloud_answer) END AS cloud_answer_text,
               CASE a.agrees WHEN 1 THEN 'yes' WHEN 0 THEN 'no' END AS agrees, a.state, a.attempts, a.last_error, a.cloud_model,
               nullif(a.calibration, '') AS calibration, strftime('%Y-%m-%dT%H:%M:%SZ', a.ended_at, 'unixepoch') AS ended_at
        FROM audits a JOIN questions q USING (fingerprint)
        ORDER BY a.id
    """,
}
