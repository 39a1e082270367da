// What Gradio asks for waits until the server answers again: Gradio itself would reload the page, and what was typed would be lost.

const PAUSE = 1000;
const once = window.fetch;

/** As `fetch`, but a handler's request that reaches nobody is sent again. */
window.fetch = async (resource, options) => {
  for (;;) {
    try {
      return await once(resource, options);
    } catch (error) {
      if (error.name === "AbortError" || !`${resource?.url ?? resource}`.includes("/gradio_api/run/")) throw error;
      await new Promise(done => setTimeout(done, PAUSE));
    }
  }
};
