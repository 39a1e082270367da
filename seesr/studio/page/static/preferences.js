// The user's own settings; for admins users and limits.

import { ask, make, say } from "./state.js";
import { button, careful, choice, copied, labelled, ticked } from "./parts.js";

const THEMES = ["", "light", "dark"], ROLES = ["user", "admin"];
const LIMITS = ["queue_length", "user_queue_length", "jobs_per_hour", "megapixels_per_hour", "pixels", "steps", "seconds", "quota_bytes", "retention_days", "trash_days"];
const HERE = "#tab=settings";

const login = () => location.replace(new URL("../login", import.meta.url));
/** The page anew, in the user's language and theme, with this tab open. */
function reopen() {
  const address = new URL(`../${HERE}`, import.meta.url);
  location.replace(address);
}

function wear(theme) {
  const isDark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.body.classList.toggle("dark", isDark);
  const address = new URL(location.href);
  if (theme) address.searchParams.set("__theme", theme);
  else address.searchParams.delete("__theme");
  history.replaceState(history.state, "", address);
}

class Preferences extends HTMLElement {
  connectedCallback() {
    new IntersectionObserver(entries => { if (entries.at(-1).isIntersecting && !this.drawn) this.load(); }).observe(this);
  }

  async load() {
    this.drawn = true;
    try {
      const [user, preferences] = await Promise.all([ask("me"), ask("me/preferences")]);
      this.user = user;
      const sections = [this.appearance(preferences), this.saving(preferences), this.fields()];
      if (user.name !== "local") sections.push(this.password(), this.keys());
      if (user.role === "admin") sections.push(this.users(), this.limits());
      this.replaceChildren(...sections);
    } catch (error) {
      this.drawn = false;
      this.replaceChildren(make("p", { className: "seesr-error", role: "alert" }, error.message));
    }
  }

  /** A part with its title, and a place for its errors and for what is done. */
  section(title, ...parts) {
    const told = make("p", { className: "seesr-error", role: "alert" }), done = make("p", { className: "done", role: "status" });
    const act = work => async event => {
      event?.preventDefault?.();
      told.textContent = done.textContent = "";
      try {
        done.textContent = (await work()) ?? "";
      } catch (error) {
        told.textContent = error.message;
      }
    };
    return make("section", { "aria-label": title }, make("header", {}, make("h3", {}, title), done), ...parts.flatMap(part => part(act)), told);
  }

  appearance(preferences) {
    const change = json => ask("me/preferences", { method: "PATCH", json });
    const languages = [["", say("as_browser")], ...Object.entries(JSON.parse(this.getAttribute("languages")))];
    const themes = THEMES.map(theme => [theme, say(`theme_${theme || "machine"}`)]);
    return this.section(say("appearance"), act => {
      const language = choice(languages, preferences.language ?? "", {
        onchange: act(async () => { await change({ language: language.value || null }); reopen(); }) });
      const theme = choice(themes, preferences.theme ?? "", {
        onchange: act(async () => { await change({ theme: theme.value || null }); wear(theme.value); }) });
      return [make("div", { className: "row" }, labelled(say("language"), language), labelled(say("theme"), theme))];
    });
  }

  saving(preferences) {
    const formats = [["", say("automatic")], ...this.getAttribute("formats").split(" ").map(format => [format, format])];
    let saving = preferences.saving;
    return this.section(say("saving"), act => {
      const keep = part => act(async () => {
        saving = (await ask("me/preferences", { method: "PATCH", json: { saving: { ...saving, ...part() } } })).saving;
        return say("kept");
      });
      const format = choice(formats, saving.format ?? "", { onchange: keep(() => ({ format: format.value || null })) });
      const metadata = make("input", { type: "checkbox", checked: saving.metadata, onchange: keep(() => ({ metadata: metadata.checked })) });
      return [make("p", {}, say("saving_about")), labelled(say("default_format"), format), ticked(say("metadata"), metadata)];
    });
  }

  fields() {
    const reset = act => act(async () => { await ask("me/fields", { method: "DELETE" }); location.hash = HERE; location.reload(); });
    return this.section(say("fields"), act => [make("p", {}, say("fields_about")),
      careful(say("forget"), say("forget_sure"), say("forget"), say("keep"), reset(act))]);
  }

  password() {
    return this.section(say("password"), act => {
      const first = make("input", { type: "password", autocomplete: "new-password", required: true });
      const again = make("input", { type: "password", autocomplete: "new-password", required: true });
      const set = act(async () => {
        if (first.value !== again.value) throw new Error(say("passwords_differ"));
        await ask(`users/${encodeURIComponent(this.user.name)}/password`, { method: "PUT", json: { password: first.value } });
        login();
      });
      return [make("p", {}, say("password_about")), make("form", { className: "row", onsubmit: set },
        make("input", { type: "text", autocomplete: "username", value: this.user.name, hidden: true }),
        labelled(say("new_password"), first), labelled(say("new_password_again"), again), make("button", { type: "submit" }, say("set_password")))];
    });
  }

  keys() {
    return this.section(say("keys"), act => {
      const list = make("ul", { "aria-label": say("keys") }), fresh = make("p", { className: "fresh" });
      const draw = async () => {
        const keys = await ask("me/keys");
        list.replaceChildren(...keys.map(key => {
          const remove = act(async () => { await ask(`me/keys/${key.id}`, { method: "DELETE" }); await draw(); });
          const name = key.label || key.id;
          return make("li", {}, make("div", {}, make("strong", {}, name), make("span", {}, new Date(key.created).toLocaleDateString())),
            careful(say("remove"), say("remove_sure", { name }), say("remove"), say("keep"), remove));
        }));
      };
      const label = make("input", { type: "text", maxLength: 100, required: true });
      const add = act(async () => {
        const { key } = await ask("me/keys", { method: "POST", json: { label: label.value } });
        label.value = "";
        fresh.replaceChildren(say("key_once"), copied(key, say("copy_key"), say("copied")));
        await draw();
      });
      draw().catch(() => {});
      return [make("p", {}, say("keys_about")), list, fresh, make("form", { className: "row", onsubmit: add },
        labelled(say("key_label"), label), make("button", { type: "submit" }, say("make_key")))];
    });
  }

  users() {
    const roles = ROLES.map(role => [role, say(`role_${role}`)]);
    return this.section(say("users"), act => {
      const list = make("ul", { "aria-label": say("users") });
      const draw = async () => list.replaceChildren(...(await ask("users")).map(user => this.userRow(user, roles, act, draw)));
      const name = make("input", { type: "text", autocomplete: "off", autocapitalize: "none", required: true });
      const password = make("input", { type: "password", autocomplete: "new-password", required: true });
      const role = choice(roles, "user");
      const add = act(async () => {
        const user = await ask("users", { method: "POST", json: { name: name.value, password: password.value, role: role.value } });
        if (this.user.name === "local") return login();
        name.value = password.value = "";
        await draw();
        return say("user_added", { name: user.name });
      });
      draw().catch(() => {});
      return [make("p", {}, say(this.user.name === "local" ? "no_users" : "users_about")), list,
        make("form", { className: "row", onsubmit: add }, labelled(say("user_name"), name), labelled(say("first_password"), password),
          labelled(say("role"), role), make("button", { type: "submit" }, say("add_user")))];
    });
  }

  userRow(user, roles, act, draw) {
    const path = `users/${encodeURIComponent(user.name)}`;
    const change = json => act(async () => {
      try {
        await ask(path, { method: "PATCH", json });
      } finally {
        await draw();
      }
    });
    const title = make("strong", {}, user.name, user.disabled ? make("span", { className: "mark" }, say("disabled")) : "");
    if (user.name === this.user.name)
      return make("li", { "data-user": user.name }, make("div", {}, title, make("span", {}, `${say(`role_${user.role}`)} · ${say("you")}`)));
    const role = choice(roles, user.role, { "aria-label": say("role_of", { name: user.name }), onchange: () => change({ role: role.value })() });
    const password = make("input", { type: "password", autocomplete: "new-password", required: true });
    const set = act(async () => {
      await ask(`${path}/password`, { method: "PUT", json: { password: password.value } });
      form.hidden = true;
      password.value = "";
      return say("password_set", { name: user.name });
    });
    const form = make("form", { className: "row", hidden: true, onsubmit: set },
      labelled(say("new_password_of", { name: user.name }), password), make("button", { type: "submit" }, say("set_password")));
    const remove = act(async () => { await ask(path, { method: "DELETE" }); await draw(); });
    return make("li", { "data-user": user.name, className: user.disabled ? "disabled" : "" },
      make("div", {}, title),
      make("div", { className: "tools" }, role,
        button(say(user.disabled ? "enable" : "disable"), change({ disabled: !user.disabled })),
        button(say("new_password"), () => { form.hidden = !form.hidden; if (!form.hidden) password.focus(); }),
        careful(say("remove"), say("remove_user_sure", { name: user.name }), say("remove"), say("keep"), remove)),
      form);
  }

  limits() {
    return this.section(say("limits"), act => {
      const list = make("dl");
      act(async () => {
        const limits = await ask("limits");
        const value = limit => (limit == null ? say("no_limit") : limit.toLocaleString(document.documentElement.lang));
        list.replaceChildren(...LIMITS.flatMap(name => [make("dt", {}, say(`limit_${name}`)), make("dd", {}, value(limits[name]))]));
      })();
      return [make("p", {}, say("limits_about")), list];
    });
  }
}

customElements.define("seesr-preferences", Preferences);
