// A real authorization server for the tests: `node --input-type=module - PORT <provider.mjs`, from a
// folder with the packages of package.json. tests/it/support/provider.rs starts it, and says what
// there is: clients, resources, accounts and the commands under /control/.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const port = Number(process.argv.at(-1));
const issuer = `http://127.0.0.1:${port}`;
const parent = process.ppid;
setInterval(() => process.ppid === parent || process.exit(), 500);
// The tests read one line and no more of what the library likes to say.
process.stdout.on('error', () => {});

const state = { mode: 'up', lifetime: 600, login: 'alice', counts: {} };
const made = new Map();

// One name, three keys: RSA under the name itself, `NAME-ec` and `NAME-ed`.
function keys(name) {
  if (!made.has(name)) {
    const pairs = [
      [name, 'RS256', 'rsa', { modulusLength: 2048 }],
      [`${name}-ec`, 'ES256', 'ec', { namedCurve: 'P-256' }],
      [`${name}-ed`, 'EdDSA', 'ed25519', {}],
    ];
    made.set(name, pairs.map(([kid, alg, type, options]) => ({
      ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
      kid, use: 'sig', ...(alg === 'RS256' ? {} : { alg }),
    })));
  }
  return made.get(name);
}

const machine = {
  grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
  scope: 'orders:read orders:write',
};
const browser = {
  grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
  redirect_uris: [`${issuer}/any`], post_logout_redirect_uris: [`${issuer}/any`],
};
const clients = [
  { client_id: 'service', client_secret: 'service-secret', ...machine },
  { client_id: 'stranger', client_secret: 'stranger-secret', ...machine },
  { client_id: 'gateway', client_secret: 'gateway-secret', ...machine },
  {
    client_id: 'gateway-post', client_secret: 'gateway-secret', ...machine,
    token_endpoint_auth_method: 'client_secret_post',
  },
  { client_id: 'portal', client_secret: 'portal-secret', ...browser },
];

// `…/opaque` has opaque tokens, `…/es256` and `…/eddsa` what they say, all others RS256.
function resource(uri) {
  const last = uri.split('/').at(-1);
  const alg = { es256: 'ES256', eddsa: 'EdDSA' }[last] ?? 'RS256';
  return {
    audience: uri,
    scope: 'orders:read orders:write',
    accessTokenTTL: state.lifetime,
    accessTokenFormat: last === 'opaque' ? 'opaque' : 'jwt',
    jwt: last === 'opaque' ? undefined : { sign: { alg } },
  };
}

// Shared by all providers that follow each other: nothing that was issued is forgotten.
const stored = new Map();
const storage = (model) => {
  const key = (id) => `${model}:${id}`;
  const find = async (id) => {
    const { value, until } = stored.get(key(id)) ?? {};
    return until > Date.now() ? value : undefined;
  };
  const findBy = async (name, wanted) => {
    for (const [at, { value }] of stored) {
      if (at.startsWith(`${model}:`) && value[name] === wanted) return value;
    }
    return undefined;
  };
  return {
    find,
    findByUid: (uid) => findBy('uid', uid),
    findByUserCode: (code) => findBy('userCode', code),
    upsert: async (id, value, seconds) => {
      stored.set(key(id), { value, until: Date.now() + (seconds ?? 86400) * 1000 });
    },
    consume: async (id) => {
      stored.get(key(id)).value.consumed = Math.floor(Date.now() / 1000);
    },
    destroy: async (id) => stored.delete(key(id)),
    revokeByGrantId: async (grantId) => {
      for (const [at, { value }] of stored) if (value.grantId === grantId) stored.delete(at);
    },
  };
};

// The first name signs.
function provider(names) {
  const it = new Provider(issuer, {
    clients,
    adapter: storage,
    jwks: { keys: names.flatMap(keys) },
    cookies: { keys: ['only a test'] },
    scopes: ['openid', 'offline_access', 'email', 'groups', 'orders:read', 'orders:write'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id, email: `${id}@example.com`, email_verified: true, groups: ['staff', id],
      }),
    }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: async (_, client, code) =>
      client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    pkce: { required: () => true },
    ttl: {
      AccessToken: () => state.lifetime, ClientCredentials: () => state.lifetime,
      IdToken: () => state.lifetime, RefreshToken: 86400, Session: 86400, Grant: 86400,
      Interaction: 3600,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => [],
        useGrantedResource: () => true,
        getResourceServerInfo: (_, uri) => resource(uri),
      },
    },
  });
  // The gateway's port is known only once it runs.
  const isLocal = (uri) => ['127.0.0.1', 'localhost'].includes(new URL(uri).hostname);
  it.Client.prototype.redirectUriAllowed = isLocal;
  it.Client.prototype.postLogoutRedirectUriAllowed = isLocal;
  return it;
}

let current = provider(['first']);

// Nobody types a password here: whoever `login` names is logged in and consents to everything.
async function interact(request, response) {
  const { prompt, params, grantId, session } = await current.interactionDetails(request, response);
  if (state.login === '') {
    const refused = { error: 'access_denied', error_description: 'the user said no' };
    return current.interactionFinished(request, response, refused);
  }
  if (prompt.name === 'login') {
    const login = { accountId: state.login };
    return current.interactionFinished(request, response, { login });
  }
  const grant = (grantId && await current.Grant.find(grantId))
    || new current.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const resources = [params.resource ?? []].flat();
  resources.forEach((it) => grant.addResourceScope(it, params.scope));
  const consent = { grantId: await grant.save() };
  const options = { mergeWithLastSubmission: true };
  return current.interactionFinished(request, response, { consent }, options);
}

function control(path, query, response) {
  switch (path) {
    case '/control/keys': current = provider(query.get('names').split(',')); break;
    case '/control/mode': state.mode = query.get('mode'); break;
    case '/control/lifetime': state.lifetime = Number(query.get('seconds')); break;
    case '/control/login': state.login = query.get('account'); break;
    case '/control/counts': break;
    default: response.statusCode = 404;
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(state.counts));
}

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, issuer);
  if (pathname.startsWith('/control/')) return control(pathname, searchParams, response);
  state.counts[pathname] = (state.counts[pathname] ?? 0) + 1;
  if (state.mode === 'hang') return undefined;
  if (state.mode === 'error') {
    response.statusCode = 500;
    return response.end('the provider is broken');
  }
  if (pathname.startsWith('/interaction/')) {
    return interact(request, response).catch((error) => {
      response.statusCode = 400;
      response.end(String(error));
    });
  }
  return current.callback()(request, response);
});
server.listen(port, '127.0.0.1', () => console.log('ready'));
