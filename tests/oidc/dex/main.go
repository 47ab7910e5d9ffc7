// Dex, a real OpenID provider with its own pages, for the tests of sign-ins: `dex PORT REDIRECT SECRET`. It is Dex's own
// server with users in memory; its `cmd/dex` needs, for an API that no sign-in uses, a module that is not published with it.
// The password of everybody is `password`.
package main

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/connectors"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/server/tokens"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/dexidp/dex/web"
	"golang.org/x/crypto/bcrypt"
)

func user(name, group string, hash []byte) storage.Password {
	return storage.Password{
		Email: name + "@example.com", Hash: hash, Username: name, UserID: "id-of-" + name, Groups: []string{group},
	}
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("dex PORT REDIRECT SECRET")
	}
	port, redirect, secret := os.Args[1], os.Args[2], os.Args[3]
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	hash, err := bcrypt.GenerateFromPassword([]byte("password"), 10)
	check(err)
	store := memory.New(logger)
	store = storage.WithStaticPasswords(store, []storage.Password{
		user("ann", "team", hash), user("bob", "team/sre", hash), user("eve", "other/sre", hash),
	}, logger)
	store = storage.WithStaticConnectors(store, []storage.Connector{
		{ID: connectors.LocalConnector, Name: "Email", Type: connectors.LocalConnector},
	})
	store = storage.WithStaticClients(store, []storage.Client{
		{ID: "nightshift", Name: "Nightshift", Secret: secret, RedirectURIs: []string{redirect}},
	})
	local := signer.LocalConfig{KeysRotationPeriod: "6h"}
	keys, err := local.Open(ctx, store, 24*time.Hour, time.Now, logger)
	check(err)
	refresh, err := tokens.NewRefreshTokenPolicy(logger, false, "", "", "")
	check(err)
	dex, err := server.NewServer(ctx, server.Config{
		Issuer:             "http://127.0.0.1:" + port + "/dex",
		Storage:            store,
		Signer:             keys,
		SkipApprovalScreen: true,
		RefreshTokenPolicy: refresh,
		Web:                server.WebConfig{WebFS: web.FS()},
		Logger:             logger,
	})
	check(err)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, dex))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
