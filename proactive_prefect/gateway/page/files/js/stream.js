// Hears of events as they happen. While the stream is down everything is asked for now and then instead. A tab that
// nobody sees lets go of the stream, since a browser has few connections for all tabs of a host.

import { note, store } from "./store.js";

const PATH = "api/v1/ops/scheduling/stream";
const POLL = 30_000;
const SILENT = 45_000; // keepalives come every 15 s
const AGAIN = 5_000;
const UNSEEN = 5_000;

/** Follow the stream; `heard(event)` for each event, `anew()` when all must be read again. */
export function follow(sinceSeq, { heard, anew }) {
  let source = null;
  let seq = sinceSeq;
  let watchdog = 0;
  let again = 0;
  let asleep = 0;

  setInterval(() => {
    if (store.stream !== "live" && store.stream !== "asleep") anew();
  }, POLL);
  if (!store.session.push) {
    note({ stream: "off" });
    return;
  }

  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENT);
    if (store.stream !== "live") {
      const back = store.stream !== "connecting";
      note({ stream: "live" });
      if (back) anew();
    }
  };
  const shut = (state) => {
    source?.close();
    clearTimeout(watchdog);
    clearTimeout(again);
    note({ stream: state });
  };
  const lost = () => {
    shut("lost");
    again = setTimeout(open, AGAIN);
  };
  const open = () => {
    shut(store.stream);
    source = new EventSource(seq === null ? PATH : `${PATH}?since_seq=${seq}`);
    source.addEventListener("message", (message) => {
      const { event } = JSON.parse(message.data);
      seq = event.seq;
      alive();
      heard(event);
    });
    source.addEventListener("keepalive", alive);
    source.addEventListener("resync", (message) => {
      seq = JSON.parse(message.data).seq;
      alive();
      anew();
    });
    source.addEventListener("error", lost);
  };
  open();
  addEventListener("online", () => store.stream === "lost" && open());
  document.addEventListener("visibilitychange", () => {
    clearTimeout(asleep);
    if (document.visibilityState === "hidden") asleep = setTimeout(() => shut("asleep"), UNSEEN);
    else if (store.stream === "asleep") open();
  });
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (shown) => shown.persisted && lost());
}
