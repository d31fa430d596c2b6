// The scripts of the pages in test_sdks_browser.py: each SDK for browsers started as its makers say, under one small interface on `window`:
// `start(sdk, {url, key, …})`, then `see(number)` for an event named "Seen" and `identify()`. Bundled by esbuild.
import { AnalyticsBrowser } from "@segment/analytics-next";
import { createWrapper } from "@segment/analytics-consent-tools";
import { RudderAnalytics } from "@rudderstack/analytics-js/bundled";
import { jitsuAnalytics } from "@jitsu/js";
import { newTracker, trackSelfDescribingEvent, trackPageView, setUserId } from "@snowplow/browser-tracker";

const properties = (number) => ({ number, name: "café 🎉" });

const sdks = {
  async segment({ url, key, batching, categories, hold }) {
    const analytics = new AnalyticsBrowser();
    const delivery = batching ? { deliveryStrategy: { strategy: "batching", config: { size: 10, timeout: hold ? 60000 : 500 } } } : {};
    if (categories) {
      const changed = {};
      createWrapper({
        getCategories: () => categories,
        shouldLoadSegment: async () => {},
        registerOnConsentChanged: (listener) => (changed.listener = listener),
      })(analytics);
      window.consent = (now) => changed.listener(Object.assign(categories, now));
    }
    analytics.load({ writeKey: key, cdnURL: url }, { integrations: { "Segment.io": delivery } });
    if (!categories) await analytics;
    return [(number) => analytics.track("Seen", properties(number)), () => analytics.identify("user-1", { plan: "gold" })];
  },
  async rudder({ url, key, beacon, hold, lists }) {
    const analytics = new RudderAnalytics();
    const consent = lists ? { consentManagement: { enabled: true, provider: "custom", ...lists } } : {};
    window.consent = (now) => analytics.consent({ consentManagement: now, trackConsent: true });
    analytics.load(key, url, { configUrl: url, logLevel: "ERROR", useBeacon: Boolean(beacon), beaconQueueOptions: { flushQueueInterval: hold ? 60000 : 500 }, ...consent });
    await new Promise((ready) => analytics.ready(ready));
    return [(number) => analytics.track("Seen", properties(number)), () => analytics.identify("user-1", { plan: "gold" })];
  },
  async jitsu({ url, key }) {
    const analytics = jitsuAnalytics({ host: url, writeKey: `${key}:secret` });
    return [(number) => analytics.track("Seen", properties(number)), () => analytics.identify("user-1", { plan: "gold" })];
  },
  async snowplow({ url, anonymous, method }) {
    newTracker("t", url, {
      appId: "shop",
      eventMethod: method ?? "post",
      bufferSize: 5,
      ...(anonymous ? { anonymousTracking: { withServerAnonymisation: true }, stateStorageStrategy: "none" } : {}),
    });
    const schema = "iglu:com.acme/Seen/jsonschema/1-0-0";
    const shelf = { schema: "iglu:com.acme/shelf/jsonschema/1-0-0", data: { shelf: "jazz" } };
    return [
      (number) => trackSelfDescribingEvent({ event: { schema, data: properties(number) }, context: [shelf] }),
      () => (setUserId("user-1"), trackPageView()),
    ];
  },
};

window.start = async (sdk, options) => {
  const [see, identify] = await sdks[sdk](options);
  Object.assign(window, { see, identify });
};
