// Package pgkeys keeps gateway keys in PostgreSQL, for gateways of many replicas. It
// knows the tables and when to read them again; what a key is, and whether one is good,
// is identity's. Calls are answered from memory: the database is not on their way.
package pgkeys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/identity"
)

// Schema makes the tables. A trigger counts every change, whoever makes it and how, so
// that replicas see in one small row whether there is anything to read. The counter's
// row also puts changes in a line: a replica cannot read the second of two changes and
// miss the first.
const Schema = `
CREATE TABLE IF NOT EXISTS waybill_keys (
	id           text PRIMARY KEY,
	hash         text NOT NULL DEFAULT '' CHECK (hash ~ '^([0-9a-f]{64})?$'),
	sealed       text NOT NULL DEFAULT '' CHECK ((hash = '') <> (sealed = '')),
	subject      text NOT NULL CHECK (subject <> ''),
	tags         jsonb NOT NULL DEFAULT '{}',
	models       text[],
	environments text[],
	created      timestamptz NOT NULL,
	expires      timestamptz,
	revoked      timestamptz,
	replaces     text NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS waybill_keys_version (
	one     boolean PRIMARY KEY DEFAULT true CHECK (one),
	version bigint NOT NULL
);
INSERT INTO waybill_keys_version (version) VALUES (1) ON CONFLICT DO NOTHING;
CREATE OR REPLACE FUNCTION waybill_keys_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE waybill_keys_version SET version = version + 1;
	RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER waybill_keys_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON waybill_keys
	FOR EACH STATEMENT EXECUTE FUNCTION waybill_keys_changed();
`

// Config configures a Store. URL is the only field that must be given.
type Config struct {
	// URL says where the database is, in any form that libpq knows:
	// postgres://user:password@host/database?sslmode=verify-full. A gateway needs
	// SELECT on waybill_keys and waybill_keys_version and nothing else.
	URL string
	// Poll is how often a change is looked for: the time after which a revocation is in
	// force. 2 seconds if zero.
	Poll time.Duration
	// StaleFor is how long keys stay good while the database cannot be reached, since a
	// revocation might be missed. 1 hour if zero.
	StaleFor time.Duration
	// Timeout bounds a statement. 5 seconds if zero.
	Timeout time.Duration
}

// A Store is gateway keys in PostgreSQL, with a copy in memory that polling keeps.
type Store struct {
	pool     *pgxpool.Pool
	poll     time.Duration
	staleFor time.Duration
	timeout  time.Duration
	stop     context.CancelFunc
	running  sync.WaitGroup
	mu       sync.Mutex // one refresh at a time: an older copy must not replace a newer
	held     atomic.Pointer[keys]
	err      atomic.Pointer[error] // of the last poll
	seen     atomic.Int64          // when the copy was last known to be current
}

type keys struct {
	byID    map[string]*identity.Key
	list    []identity.Key
	version int64
}

// Open reads the keys and begins to poll. A database that cannot be reached is no
// error: Ready tells, and until then keys are refused. End it with Close.
func Open(ctx context.Context, c Config) (*Store, error) {
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		// The error of pgx has the URL in it, without the password; but what of a URL
		// is its password cannot be told when it cannot be parsed.
		return nil, &waybill.Error{Kind: waybill.Misused, Message: "the URL of the database for gateway keys cannot be read", Hint: "write postgres://user@host/database; the password may stand in PGPASSWORD or ~/.pgpass"}
	}
	config.MaxConns = 4
	config.ConnConfig.ConnectTimeout = cmp.Or(c.Timeout, 5*time.Second)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open gateway keys in PostgreSQL: %w", err)
	}
	s := &Store{pool: pool, poll: cmp.Or(c.Poll, 2*time.Second), staleFor: cmp.Or(c.StaleFor, time.Hour), timeout: cmp.Or(c.Timeout, 5*time.Second)}
	s.held.Store(&keys{version: -1})
	_ = s.refresh(ctx) // Ready has it
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.running.Go(func() {
		tick := time.NewTicker(s.poll)
		defer tick.Stop()
		for {
			select {
			case <-running.Done():
				return
			case <-tick.C:
				_ = s.refresh(running) // Ready has it
			}
		}
	})
	return s, nil
}

// Close ends polling, waits for it, and closes the connections.
func (s *Store) Close() {
	s.stop()
	s.running.Wait()
	s.pool.Close()
}

// Init makes the tables. It may be called again, and by many at once.
func (s *Store) Init(ctx context.Context) error {
	err := s.do(ctx, func(ctx context.Context, tx pgx.Tx) error {
		// CREATE ... IF NOT EXISTS is not safe against itself.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('waybill_keys'))"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, Schema)
		return err
	})
	if err != nil {
		return fmt.Errorf("make the tables of gateway keys: %w", err)
	}
	return s.refresh(ctx)
}

// Method is the method of the keys of this store.
func (s *Store) Method() identity.Method { return identity.KeyMethod(s) }

// Lookup finds a key by its id in memory. It is an error if the database could not be
// reached for too long.
func (s *Store) Lookup(id string) (*identity.Key, error) {
	if time.Since(time.Unix(0, s.seen.Load())) > s.staleFor {
		return nil, s.stale()
	}
	return s.held.Load().byID[id], nil
}

func (s *Store) stale() error {
	return fmt.Errorf("gateway keys could not be read for %v, a revocation may be missed: %w", s.staleFor, cmp.Or(s.lastErr(), errors.New("the database was not reached")))
}

func (s *Store) lastErr() error {
	if err := s.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Ready says why the keys may be out of date, or cannot be used any more.
func (s *Store) Ready() error { return s.lastErr() }

// List gives all keys, as they were read last, by subject.
func (s *Store) List() []identity.Key { return slices.Clone(s.held.Load().list) }

// refresh reads the keys again if they have changed.
func (s *Store) refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	now := time.Now()
	err := s.read(ctx)
	if err != nil {
		err = fmt.Errorf("read gateway keys from PostgreSQL: %w", err)
		s.err.Store(&err)
		return err
	}
	s.err.Store(nil)
	s.seen.Store(now.UnixNano())
	return nil
}

func (s *Store) read(ctx context.Context) error {
	var version int64
	if err := s.pool.QueryRow(ctx, "SELECT version FROM waybill_keys_version").Scan(&version); err != nil {
		return err
	}
	if version == s.held.Load().version {
		return nil
	}
	// A change between the two statements is read now and again at the next poll.
	rows, err := s.pool.Query(ctx, "SELECT id, hash, sealed, subject, tags, models, environments, created, expires, revoked, replaces FROM waybill_keys ORDER BY subject, created, id")
	if err != nil {
		return err
	}
	next := &keys{byID: make(map[string]*identity.Key), version: version}
	if next.list, err = pgx.CollectRows(rows, scanKey); err != nil {
		return err
	}
	for i := range next.list {
		next.byID[next.list[i].ID] = &next.list[i]
	}
	s.held.Store(next)
	return nil
}

func scanKey(row pgx.CollectableRow) (identity.Key, error) {
	var k identity.Key
	err := row.Scan(&k.ID, &k.Hash, &k.Sealed, &k.Subject, &k.Tags, &k.Models, &k.Environments, &k.Created, &k.Expires, &k.Revoked, &k.Replaces)
	return k, err
}

// Add keeps a key that was made elsewhere: a signing key.
func (s *Store) Add(ctx context.Context, key identity.Key) error {
	if err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error { return insert(ctx, tx, &key) }); err != nil {
		return fmt.Errorf("add gateway key: %w", err)
	}
	return nil
}

// Create makes a key and returns its only showing.
func (s *Store) Create(ctx context.Context, spec identity.Key) (token string, key identity.Key, err error) {
	token, key, err = identity.NewKey(spec, time.Now())
	if err != nil {
		return "", identity.Key{}, err
	}
	err = s.change(ctx, func(ctx context.Context, tx pgx.Tx) error { return insert(ctx, tx, &key) })
	if err != nil {
		return "", identity.Key{}, fmt.Errorf("create gateway key: %w", err)
	}
	return token, key, nil
}

// Rotate makes a key like another, which stays good for the overlap. Both happen or
// neither.
func (s *Store) Rotate(ctx context.Context, id string, overlap time.Duration) (token string, key identity.Key, err error) {
	err = s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		old, err := lock(ctx, tx, id)
		if err != nil {
			return err
		}
		now := time.Now()
		if token, key, err = old.Successor(now); err != nil {
			return err
		}
		old.RevokeAt(now.Add(overlap))
		if err := insert(ctx, tx, &key); err != nil {
			return err
		}
		return end(ctx, tx, old)
	})
	if err != nil {
		return "", identity.Key{}, fmt.Errorf("rotate gateway key: %w", err)
	}
	return token, key, nil
}

// Revoke ends a key now; other replicas know at their next poll.
func (s *Store) Revoke(ctx context.Context, id string) error {
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		old, err := lock(ctx, tx, id)
		if err != nil {
			return err
		}
		old.RevokeAt(time.Now())
		return end(ctx, tx, old)
	})
	if err != nil {
		return fmt.Errorf("revoke gateway key: %w", err)
	}
	return nil
}

func insert(ctx context.Context, tx pgx.Tx, k *identity.Key) error {
	_, err := tx.Exec(ctx, "INSERT INTO waybill_keys (id, hash, sealed, subject, tags, models, environments, created, expires, revoked, replaces) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)",
		k.ID, k.Hash, k.Sealed, k.Subject, k.Tags, k.Models, k.Environments, k.Created, k.Expires, k.Revoked, k.Replaces)
	return err
}

// lock reads a key that this transaction will change.
func lock(ctx context.Context, tx pgx.Tx, id string) (*identity.Key, error) {
	rows, err := tx.Query(ctx, "SELECT id, hash, sealed, subject, tags, models, environments, created, expires, revoked, replaces FROM waybill_keys WHERE id = $1 FOR UPDATE", id)
	if err != nil {
		return nil, err
	}
	k, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, identity.NoKey(id)
	}
	return &k, err
}

func end(ctx context.Context, tx pgx.Tx, k *identity.Key) error {
	_, err := tx.Exec(ctx, "UPDATE waybill_keys SET revoked = $2 WHERE id = $1", k.ID, k.Revoked)
	return err
}

// change makes a change and reads the keys again, so that this process knows it at once.
func (s *Store) change(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	if err := s.do(ctx, f); err != nil {
		return err
	}
	return s.refresh(ctx)
}

func (s *Store) do(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return f(ctx, tx) })
}
