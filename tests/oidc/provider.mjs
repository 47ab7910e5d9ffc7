// A certified OpenID provider with three people, for the tests of the pages: `node provider.mjs FOLDER PORT REDIRECT`.
// FOLDER is where tools/fetch-oidc-provider.sh has installed it. Any password is right.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, port, redirect] = process.argv.slice(2);
const found = createRequire(`${folder}/package.json`).resolve("oidc-provider");
const { default: Provider } = await import(pathToFileURL(found));

const people = {
  "u-ada": { email: "ada@example.com", email_verified: true, groups: [] },
  "u-bob": { email: "bob@example.com", email_verified: true, groups: ["everybody", "sre"] },
  "u-eve": { email: "ada@example.com", email_verified: false, groups: ["everybody"] },
};

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "nightshift",
      client_secret: "a secret that only the two know: 1/2+3 %",
      redirect_uris: [redirect],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
  scopes: ["openid", "email", "groups"],
  pkce: { required: () => true },
  cookies: { keys: ["of the tests alone"] },
  findAccount: (_, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
