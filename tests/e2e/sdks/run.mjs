// Runs one SDK for Node: `node run.mjs SDK URL KEY COUNT` sends an identify and COUNT events named "Seen", and ends when all are out.
const [, , sdk, url, key, count] = process.argv;
const numbers = [...Array(Number(count)).keys()];
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

const sdks = {
  async segment() {
    const { Analytics } = await import("@segment/analytics-node");
    await segmentLike(new Analytics({ writeKey: key, host: url, flushAt: 5, flushInterval: 100, maxRetries: 10 }));
  },
  async customerio() {
    const { Analytics } = await import("@customerio/cdp-analytics-node");
    await segmentLike(new Analytics({ writeKey: key, host: url, flushAt: 5, flushInterval: 100, maxRetries: 10 }));
  },
  async rudder() {
    const { default: module } = await import("@rudderstack/rudder-sdk-node");
    const Analytics = module.default ?? module;
    const client = new Analytics(key, { dataPlaneUrl: url, flushAt: 5, flushInterval: 100, retryCount: 10, logLevel: "error" });
    client.identify({ userId: "user-1", traits: { plan: "gold" } });
    for (const number of numbers) {
      client.track({ userId: "user-1", event: "Seen", properties: { number, name: "café 🎉" } });
    }
    await client.flush();
    await wait(300);
    await client.flush();
  },
  async jitsu() {
    const { jitsuAnalytics } = await import("@jitsu/js");
    const client = jitsuAnalytics({ host: url, writeKey: `${key}:secret`, s2s: true });
    await client.identify("user-1", { plan: "gold" });
    for (const number of numbers) {
      await client.track("Seen", { number, name: "café 🎉" }).catch(() => {}); // one at a time: it never sends again
    }
  },
  async snowplow() {
    const { newTracker, buildStructEvent, buildSelfDescribingEvent } = await import("@snowplow/node-tracker");
    let sent = 0;
    const tracker = newTracker(
      { namespace: "t", appId: "any", encodeBase64: true },
      {
        endpoint: url,
        bufferSize: 5,
        eventMethod: "post",
        retryFailedRequests: true,
        onRequestSuccess: (batch) => (sent += batch.length),
      },
    );
    tracker.setUserId("user-1");
    const schema = "iglu:com.acme/Seen/jsonschema/1-0-0";
    const page = { schema: "iglu:com.acme/shelf/jsonschema/1-0-0", data: { shelf: "jazz" } };
    tracker.track(buildStructEvent({ category: "account", action: "Signed", label: "gold" }));
    for (const number of numbers) {
      tracker.track(buildSelfDescribingEvent({ event: { schema, data: { number, name: "café 🎉" } } }), [page]);
    }
    for (let tries = 0; tries < 80 && sent < numbers.length + 1; tries++) {
      await tracker.flush();
      await wait(250);
    }
  },
};

async function segmentLike(client) {
  client.identify({ userId: "user-1", traits: { plan: "gold" } });
  for (const number of numbers) {
    client.track({ userId: "user-1", event: "Seen", properties: { number, name: "café 🎉" } });
  }
  await client.closeAndFlush({ timeout: 30000 });
}

await sdks[sdk]();
